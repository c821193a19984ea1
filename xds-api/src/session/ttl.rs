//! `Resource.ttl` on the wire and as a [`Duration`].

use std::time::Duration;

use crate::wire::protobuf;

/// The largest Duration, in seconds: about 10,000 years (`google/protobuf/duration.proto`).
const SECONDS_MAX: u64 = 315_576_000_000;

/// A TTL as it was received; an error when it is negative or no valid Duration.
pub(super) fn decode(ttl: protobuf::Duration) -> Result<Duration, String> {
    let (seconds, nanos) = (u64::try_from(ttl.seconds), u32::try_from(ttl.nanos));
    match (seconds, nanos) {
        (Ok(seconds @ ..=SECONDS_MAX), Ok(nanos @ ..=999_999_999)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(format!("{} s and {} ns are not a time to live", ttl.seconds, ttl.nanos)),
    }
}

/// A TTL to send. One that is longer than the largest Duration is as good as that.
pub(super) fn encode(ttl: Duration) -> protobuf::Duration {
    let seconds = i64::try_from(ttl.as_secs().min(SECONDS_MAX)).unwrap_or(i64::MAX);
    protobuf::Duration { seconds, nanos: i32::try_from(ttl.subsec_nanos()).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_bounds() {
        for ttl in [Duration::ZERO, Duration::from_millis(1500), Duration::from_secs(SECONDS_MAX)] {
            assert_eq!(decode(encode(ttl)), Ok(ttl));
        }
        assert_eq!(decode(encode(Duration::MAX)).map(|ttl| ttl.as_secs()), Ok(SECONDS_MAX));
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert!(decode(protobuf::Duration { seconds, nanos }).is_err());
        }
    }
}
