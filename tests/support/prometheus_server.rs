//! A real Prometheus as a child process.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::addr::free_addr;
use crate::client::get;
use crate::tools::require_tool;

/// A running Prometheus that scrapes some targets every second; killed when dropped.
#[derive(Debug)]
pub struct PrometheusServer {
    child: Child,
    addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl PrometheusServer {
    /// Starts one on targets with the path `/stats/prometheus`; `None` when it is not installed.
    pub fn start(targets: &[SocketAddr]) -> Option<Self> {
        let program = require_tool("prometheus")?;
        let folder = tempfile::tempdir().expect("temporary folder");
        let targets: Vec<String> = targets.iter().map(SocketAddr::to_string).collect();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{
                "job_name": "proxies",
                "metrics_path": "/stats/prometheus",
                "static_configs": [{"targets": targets}],
            }],
        });
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).expect("write the configuration");
        let addr = free_addr();
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).expect("log file"))
            .spawn()
            .expect("start prometheus");
        Some(PrometheusServer { child, addr, folder })
    }

    /// The value of an instant query that gives one sample; `None` when it gives none or the server is not up yet.
    pub fn query(&self, expression: &str) -> Option<f64> {
        std::net::TcpStream::connect(self.addr).ok()?;
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let response = get(self.addr, "prometheus", &format!("/api/v1/query?query={encoded}"));
        let answer: Value = serde_json::from_slice(&response.body).ok()?;
        answer.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
    }

    /// Waits until a query gives this value.
    #[track_caller]
    pub fn wait_for(&self, expression: &str, value: f64) {
        let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let mut last = None;
        let found = crate::wait::within(crate::wait::PATIENCE, || {
            last = self.query(expression);
            (last == Some(value)).then_some(())
        });
        assert!(found.is_some(), "{expression} is {last:?}, not {value}; log:\n{}", log());
    }

    /// Waits until all targets have been scraped.
    #[track_caller]
    pub fn wait_up(&self, targets: u32) {
        let up = crate::wait::within(crate::wait::PATIENCE, || {
            (self.query("sum(up)") == Some(f64::from(targets))).then_some(())
        });
        assert!(up.is_some(), "not all targets are up: {}", get(self.addr, "p", "/api/v1/targets").text());
    }
}

impl Drop for PrometheusServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
