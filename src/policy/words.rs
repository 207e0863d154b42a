//! What is said of ways, for people.

use crate::policy::rollout::Step;
use crate::stages::{SpfPolicy, Stage, StsStage, Track};

/// Returns what people call a track.
pub fn called(track: Track) -> &'static str {
    match track {
        Track::Dmarc => "DMARC",
        Track::MtaSts => "MTA-STS",
        Track::Spf => "SPF",
    }
}

/// Returns what a stage is, as it stands in the record.
pub fn stage(stage: Stage) -> String {
    match stage {
        Stage::Dmarc(policy) => format!("p={}", policy.as_str()),
        Stage::MtaSts(stage) => stage.as_str().to_owned(),
        Stage::Spf(SpfPolicy::Fail) => "-all".to_owned(),
        Stage::Spf(SpfPolicy::SoftFail) => "~all".to_owned(),
    }
}

/// Returns what a step is, in words that stand behind a name.
pub fn step(step: &Step) -> String {
    match step {
        Step::Stage(Stage::MtaSts(StsStage::Testing)) => "MTA-STS is tested".to_owned(),
        Step::Stage(Stage::MtaSts(StsStage::Enforce)) => "MTA-STS is enforced for a week at a time".to_owned(),
        Step::Stage(Stage::MtaSts(StsStage::EnforceLong)) => "MTA-STS is enforced for long".to_owned(),
        Step::Stage(Stage::MtaSts(StsStage::Withdrawn)) => "MTA-STS is withdrawn: its policy has mode none".to_owned(),
        Step::Stage(Stage::MtaSts(StsStage::Off)) => "MTA-STS is off".to_owned(),
        Step::Stage(other) => format!("{} says {}", called(other.track()), stage(*other)),
        Step::TestAgain => "the test of MTA-STS begins anew, for the MX hosts changed".to_owned(),
        Step::Announce => "the MTA-STS policy lists the hosts that come".to_owned(),
        Step::MoveMx => "MX records name the hosts of the settings".to_owned(),
        Step::DropMx => "the MTA-STS policy loses the hosts that left".to_owned(),
        Step::Lengthen => "MTA-STS is remembered for longer".to_owned(),
        Step::Forget => "no sender remembers an enforced MTA-STS policy".to_owned(),
    }
}

/// Returns a word for a step, for programs.
pub fn code(step: &Step) -> &'static str {
    match step {
        Step::Stage(_) => "stage",
        Step::TestAgain => "test-again",
        Step::Announce => "announce-mx",
        Step::MoveMx => "move-mx",
        Step::DropMx => "drop-mx",
        Step::Lengthen => "lengthen",
        Step::Forget => "forget",
    }
}

/// The reason against policies that refuse mail of lists (RFC 9989 §7.4).
pub const LISTS: &str = "mailing lists change what they pass on: where users write to some, p=reject and -all lose \
                                their mail at receivers that obey (RFC 9989 §7.4); p=quarantine and ~all do not";
