//! Durations and quantities as Kubernetes APIs write them: Istio's, the Gateway API's, those of containers.

use outrigger_control_plane::fuzzing::{gateway_duration, go_duration, quantity};

use crate::input::text;

/// The Gateway API's form (GEP-2257) is a part of Go's and means the same there; a quantity is a finite number.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(duration) = gateway_duration(text) {
        assert_eq!(go_duration(text), Ok(duration));
        let mut numbers = text.split_terminator(['h', 'm', 's']);
        assert!(numbers.all(|number| number.len() <= 5 && number.bytes().all(|byte| byte.is_ascii_digit())));
    }
    if let Ok(quantity) = quantity(text) {
        assert!(quantity.is_finite() && quantity >= 0.0, "{quantity}");
    }
}
