//! Fingerprints of ClientHellos, byte by byte the same for both proxies.

use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{cluster, file_access_log, listener, tcp_proxy, type_url};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::proxy::Launch;
use outrigger_tests::upstream::{TcpBehaviour, TcpUpstream};
use outrigger_tests::{Bootstrap, RawClient};
use serde_json::{Value, json};

const FORMAT: &str =
    "%TLS_JA3_FINGERPRINT% %TLS_JA4_FINGERPRINT% %REQUESTED_SERVER_NAME% %DOWNSTREAM_HANDSHAKE_DURATION%\n";

/// Numbers of two bytes behind their length.
fn list(values: &[u16]) -> Vec<u8> {
    with_length(&values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<u8>>())
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length(content)].concat()
}

fn server_name(name: &str) -> Vec<u8> {
    extension(0, &with_length(&[&[0][..], &with_length(name.as_bytes())].concat()))
}

fn protocols(names: &[&[u8]]) -> Vec<u8> {
    let names = names.iter().flat_map(|name| [&[u8::try_from(name.len()).unwrap()][..], name].concat());
    extension(16, &with_length(&names.collect::<Vec<u8>>()))
}

fn versions(versions: &[u16]) -> Vec<u8> {
    let bytes: Vec<u8> = versions.iter().flat_map(|value| value.to_be_bytes()).collect();
    extension(43, &[&[u8::try_from(bytes.len()).unwrap()][..], &bytes].concat())
}

fn groups(values: &[u16]) -> Vec<u8> {
    extension(10, &list(values))
}

fn signatures(values: &[u16]) -> Vec<u8> {
    extension(13, &list(values))
}

/// A whole record with a ClientHello of TLS 1.2's form.
fn hello(suites: &[u16], extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = with_length(&extensions.concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &list(suites), &[1, 0], &extensions].concat();
    let message = [&[1, 0][..], &with_length(&body)].concat();
    [&[22, 3, 1][..], &with_length(&message)].concat()
}

#[test]
fn of_client_hellos() {
    let formats = || extension(11, &[1, 0]);
    let browser = [
        extension(0x2a2a, &[]),
        server_name("www.example"),
        groups(&[0x1a1a, 29, 23, 24]),
        formats(),
        protocols(&[b"h2", b"http/1.1"]),
        signatures(&[0x0403, 0x0804, 0x0401]),
        versions(&[0x3a3a, 0x0304, 0x0303]),
        extension(23, &[]),
    ];
    let hellos: Vec<(&str, Vec<u8>)> = vec![
        ("a browser's", hello(&[0x0a0a, 0x1302, 0x1301, 0xc02b, 0xc02f], &browser)),
        (
            "TLS 1.2",
            hello(
                &[0xc02f, 0xc02b],
                &[server_name("a.example"), groups(&[29]), formats(), signatures(&[0x0401])],
            ),
        ),
        ("no signatures", hello(&[0x1301], &[server_name("a.example"), groups(&[23]), versions(&[0x0304])])),
        (
            "no name",
            hello(&[0x1301, 0x1303], &[groups(&[29, 23]), signatures(&[0x0403]), versions(&[0x0304])]),
        ),
        (
            "another protocol",
            hello(&[0x1301], &[protocols(&[b"istio-peer-exchange", b"h2"]), signatures(&[0x0403])]),
        ),
        ("a protocol of one letter", hello(&[0x1301], &[protocols(&[b"x"]), signatures(&[0x0403])])),
        (
            "a protocol that is no text",
            hello(&[0x1301], &[protocols(&[b"\xab\x10\xcd"]), signatures(&[0x0403])]),
        ),
        ("name and protocol alone", hello(&[0x1301], &[server_name("a.example"), protocols(&[b"h2"])])),
        ("plaintext", b"GET / HTTP/1.1\r\n\r\n".into()),
    ];
    let up = TcpUpstream::start(TcpBehaviour::Echo);
    let bootstrap = Bootstrap::new();
    let inspectors = [
        ("both", json!({"enable_ja3_fingerprinting": true, "enable_ja4_fingerprinting": true})),
        ("one", json!({"enable_ja4_fingerprinting": true})),
        ("none", json!({})),
    ];
    let addrs = inspectors.each_ref().map(|_| free_addr());
    let listeners: Vec<Value> = (inspectors.iter().zip(addrs))
        .map(|((name, settings), addr)| {
            let log = file_access_log(&bootstrap.path(name), Some(FORMAT));
            let mut listener = listener(name, addr, tcp_proxy("up", json!({"access_log": [log]})));
            let mut inspector =
                json!({"@type": type_url("extensions.filters.listener.tls_inspector.v3.TlsInspector")});
            outrigger_tests::bootstrap::overlay(&mut inspector, settings.clone());
            listener["listener_filters"] = json!([{"name": "tls_inspector", "typed_config": inspector}]);
            listener
        })
        .collect();
    bootstrap.write(&listeners, &[cluster("up", &[up.addr()], Value::Null)]);
    compare(|engine| {
        let proxy = Launch::new(engine).workers(1).arg("-l").arg("error").start(&bootstrap)?;
        for addr in addrs {
            for (_, bytes) in &hellos {
                let mut client = RawClient::connect(addr).unwrap();
                client.send(bytes);
                client.read_exactly(bytes.len()).unwrap();
                client.finish();
                client.read_to_end().unwrap();
            }
        }
        proxy.stop();
        let mut view = View::default();
        for (inspector, _) in &inspectors {
            for ((name, _), line) in hellos.iter().zip(bootstrap.take_log(inspector)) {
                view.add(format!("{inspector}: {name}"), format!("{line}\n"));
            }
        }
        Some(view)
    });
}
