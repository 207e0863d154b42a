//! A bar for who looks on.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::env::Env;

/// Returns a bar of so many steps, `users` or whatever else they are; nobody sees it where nobody is.
pub(super) fn bar(env: &dyn Env, steps: usize, what: &str) -> ProgressBar {
    if !env.person_is_there() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(&format!("{{bar:40}} {{pos}} of {{len}} {what}, {{eta}} left")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
