//! Kubernetes' quantities: `100m`, `1.5`, `128Mi`, `1e3`.

/// Reads a quantity; what is asked of a container is never negative.
///
/// # Errors
/// A sentence saying what is expected.
pub(crate) fn parse(text: &str) -> Result<f64, String> {
    let malformed = || format!("{text:?} is not a quantity such as 100m, 2, 128Mi or 1G");
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 2f64.powi(10),
        "Mi" => 2f64.powi(20),
        "Gi" => 2f64.powi(30),
        "Ti" => 2f64.powi(40),
        "Pi" => 2f64.powi(50),
        "Ei" => 2f64.powi(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(malformed)?;
            10f64.powi(exponent.parse::<i8>().map_err(|_| malformed())?.into())
        }
    };
    let number: f64 = number.parse().map_err(|_| malformed())?;
    Ok(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, expected) in
            [("100m", 0.1), ("2", 2.0), ("1.5", 1.5), ("128Mi", 134_217_728.0), ("1G", 1e9), ("1e3", 1000.0)]
        {
            let parsed = parse(text).unwrap_or(f64::NAN);
            assert!((parsed - expected).abs() <= expected * 1e-12, "{text}: {parsed}");
        }
        for bad in ["", "m", "-1", "1 Gi", "1Kb", "1..2", "0x10", "1e", "NaN", "inf", "+"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
