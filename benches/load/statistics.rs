//! Numbers from samples, and how they are printed.

/// The middle one, or between the middle two.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    match samples.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => samples[middle],
        _ => (samples[middle - 1] + samples[middle]) / 2.0,
    }
}

/// The value that this part (0 to 1) of the samples does not exceed.
pub fn quantile(sorted: &[u64], part: f64) -> u64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// A number, or a dash where there is none.
pub fn cell(value: f64, decimals: usize) -> String {
    if value.is_finite() && value > 0.0 {
        format!("{value:.decimals$}")
    } else {
        "-".to_owned()
    }
}

/// How many times `of` it is.
pub fn ratio(value: f64, of: f64) -> String {
    cell(value / of, 2)
}
