//! Times pieces of work against each other in one run, and says how they compare.

use std::hint::black_box;
use std::time::Instant;

/// A piece of work, done so often in each turn.
pub(crate) struct Work<'a> {
    times: u32,
    run: Box<dyn FnMut() + 'a>,
}

impl<'a> Work<'a> {
    /// Takes a piece of work; what it returns is not optimised away.
    pub(crate) fn new<T>(times: u32, mut run: impl FnMut() -> T + 'a) -> Self {
        Self { times, run: Box::new(move || drop(black_box(run()))) }
    }
}

/// The seconds that one piece of work took in each turn.
pub(crate) struct Times(Vec<f64>);

/// Does each piece of work in turn, over and over, so that whatever else the machine does hits all of them alike. The first
/// turn warms up and does not count.
pub(crate) fn in_turn<const N: usize>(turns: usize, mut works: [Work<'_>; N]) -> [Times; N] {
    let mut times = std::array::from_fn(|_| Times(Vec::with_capacity(turns)));
    for turn in 0..=turns {
        for (work, times) in works.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            (0..work.times).for_each(|_| (work.run)());
            if turn > 0 {
                times.0.push(begun.elapsed().as_secs_f64() / f64::from(work.times));
            }
        }
    }
    times
}

impl Times {
    /// Returns the median.
    pub(crate) fn median(&self) -> f64 {
        let [_, median, _] = quartiles(&self.0);
        median
    }

    /// Returns the time within which the fastest tenth of the turns was done: those that nothing disturbed.
    pub(crate) fn fastest(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 10).copied().unwrap_or(f64::NAN)
    }

    /// Returns how much longer this took than the other, turn by turn.
    pub(crate) fn over(&self, other: &Self) -> Ratio {
        Ratio(quartiles(&self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect::<Vec<_>>()))
    }

    /// Returns what several pieces of work take together, each so often, turn by turn.
    pub(crate) fn sum(items: &[(f64, &Self)]) -> Self {
        let turns = items.iter().map(|(_, times)| times.0.len()).min().unwrap_or_default();
        let mut sums = vec![0.0; turns];
        for (count, times) in items {
            sums.iter_mut().zip(&times.0).for_each(|(sum, time)| *sum += count * time);
        }
        Self(sums)
    }
}

/// How two pieces of work compare: the median over all turns, and the quartiles around it.
pub(crate) struct Ratio([f64; 3]);

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, median, high] = self.0;
        write!(f, "{median:.2} (quartiles {low:.2} and {high:.2})")
    }
}

fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted.get(sorted.len().saturating_sub(1) * quarter / 4).copied().unwrap_or(f64::NAN))
}

/// Returns a length of time with three digits or so.
pub(crate) fn shown(seconds: f64) -> String {
    match seconds {
        long if long >= 1.0 => format!("{long:.2} s"),
        middle if middle >= 1e-3 => format!("{:.2} ms", middle * 1e3),
        short => format!("{:.2} µs", short * 1e6),
    }
}
