//! The steps by which a domain's policies are tightened, as words: what the settings aim at, what is recorded, what is
//! published. `policy::rollout` moves from one to the next.

use std::fmt;

/// The qualifier of SPF's last term (RFC 7208 §4.6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpfPolicy {
    /// `~all`: DMARC still sees the DKIM signature of forwarded mail.
    #[default]
    SoftFail,
    /// `-all`.
    Fail,
}

impl SpfPolicy {
    /// Every policy, the mildest first.
    pub const ALL: [Self; 2] = [Self::SoftFail, Self::Fail];

    /// Returns the policy's word in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SoftFail => "softfail",
            Self::Fail => "fail",
        }
    }
}

/// The `p` tag of DMARC (RFC 9989 §4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DmarcPolicy {
    /// Only report.
    #[default]
    None,
    /// Treat as suspicious.
    Quarantine,
    /// Refuse.
    Reject,
}

impl DmarcPolicy {
    /// Every policy, the mildest first.
    pub const ALL: [Self; 3] = [Self::None, Self::Quarantine, Self::Reject];

    /// Returns the tag's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

/// How far MTA-STS is (RFC 8461): what the policy's `mode` and `max_age` are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StsStage {
    /// Nothing is published, and senders remember nothing.
    #[default]
    Off,
    /// Mode `testing` for a day: senders report and deliver all the same.
    Testing,
    /// Mode `enforce` for a week, so that a mistake is over soon.
    Enforce,
    /// Mode `enforce` for as long as the settings say.
    EnforceLong,
    /// Mode `none`, until no sender remembers another one: the way back to [`Self::Off`] (RFC 8461 §8.3).
    Withdrawn,
}

impl StsStage {
    /// Every stage, in the order in which they come.
    pub const ALL: [Self; 5] = [Self::Off, Self::Testing, Self::Enforce, Self::EnforceLong, Self::Withdrawn];

    /// Returns the stage's name in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Testing => "testing",
            Self::Enforce => "enforce",
            Self::EnforceLong => "enforce-long",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// Tells whether senders refuse to deliver to a host that the policy does not name.
    pub fn is_enforced(self) -> bool {
        matches!(self, Self::Enforce | Self::EnforceLong)
    }
}

/// What is tightened, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    /// DMARC's policy.
    Dmarc,
    /// MTA-STS.
    MtaSts,
    /// What SPF says of other senders.
    Spf,
}

impl Track {
    /// Every track.
    pub const ALL: [Self; 3] = [Self::Dmarc, Self::MtaSts, Self::Spf];

    /// Returns the track's name in the settings, on the command line and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dmarc => "dmarc",
            Self::MtaSts => "mta_sts",
            Self::Spf => "spf",
        }
    }
}

impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a domain stands on one track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Of DMARC.
    Dmarc(DmarcPolicy),
    /// Of MTA-STS.
    MtaSts(StsStage),
    /// Of SPF.
    Spf(SpfPolicy),
}

impl Stage {
    /// Returns what this is a stage of.
    pub fn track(self) -> Track {
        match self {
            Self::Dmarc(_) => Track::Dmarc,
            Self::MtaSts(_) => Track::MtaSts,
            Self::Spf(_) => Track::Spf,
        }
    }

    /// Returns where every domain begins on a track.
    pub fn first(track: Track) -> Self {
        match track {
            Track::Dmarc => Self::Dmarc(DmarcPolicy::None),
            Track::MtaSts => Self::MtaSts(StsStage::Off),
            Track::Spf => Self::Spf(SpfPolicy::SoftFail),
        }
    }

    /// Returns the stage's word, as the ledger has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dmarc(policy) => policy.as_str(),
            Self::MtaSts(stage) => stage.as_str(),
            Self::Spf(policy) => policy.as_str(),
        }
    }

    /// Reads a stage of a track from its word.
    pub fn of(track: Track, word: &str) -> Option<Self> {
        match track {
            Track::Dmarc => DmarcPolicy::ALL.into_iter().map(Self::Dmarc).find(|stage| stage.as_str() == word),
            Track::MtaSts => StsStage::ALL.into_iter().map(Self::MtaSts).find(|stage| stage.as_str() == word),
            Track::Spf => SpfPolicy::ALL.into_iter().map(Self::Spf).find(|stage| stage.as_str() == word),
        }
    }
}
