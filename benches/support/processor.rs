//! The processor's time, which other programs on the machine change little.

use std::fs;

/// What takes a processor, of this process and of those that it ran, in seconds.
pub(crate) fn processor() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(4);
    // A hundredth each, on every Linux.
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
