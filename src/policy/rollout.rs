//! The way to a domain's policies: which step is in force, which is next, when it may come, and what must be known before.

use crate::inventory::Inventory;
use crate::site::{Domain, Host, Site};
use crate::stages::{DmarcPolicy, SpfPolicy, Stage, StsStage, Track};

/// The policies that are rendered for a domain now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce<'a> {
    /// What SPF says of other senders.
    pub spf: SpfPolicy,
    /// What DMARC asks of receivers.
    pub dmarc: DmarcPolicy,
    /// MTA-STS.
    pub mta_sts: StsStage,
    /// How long senders may remember the MTA-STS policy, in seconds.
    pub max_age: u32,
    /// The hosts that MX records name, in the order of the site; none for a domain without mail.
    pub mx: Vec<&'a Host>,
    /// The names that the MTA-STS policy lists, sorted: those, and where hosts change, those that come and that leave.
    pub policy_mx: Vec<crate::names::HostName>,
}

/// Returns the policies that are rendered for a domain: what the settings fix, else what is recorded, else the beginning.
pub fn in_force<'a>(site: &'a Site, inventory: &Inventory, domain: &Domain) -> InForce<'a> {
    let stage = |track| inventory.rollout(&domain.name, track).map_or(Stage::first(track), |rollout| rollout.stage);
    let (mut spf, mut dmarc, mut mta_sts) = (SpfPolicy::SoftFail, DmarcPolicy::None, StsStage::Off);
    for track in Track::ALL {
        match stage(track) {
            Stage::Dmarc(policy) => dmarc = policy,
            Stage::MtaSts(stage) => mta_sts = stage,
            Stage::Spf(policy) => spf = policy,
        }
    }
    if !domain.mail {
        // Nothing is lost by refusing what nobody sends.
        (spf, dmarc, mta_sts) = (SpfPolicy::Fail, DmarcPolicy::Reject, StsStage::Off);
    }
    let mx: Vec<&Host> = site.hosts.iter().filter(|_| domain.mail).collect();
    let policy_mx = mx.iter().map(|host| host.name.clone()).collect();
    InForce {
        spf: domain.spf.unwrap_or(spf),
        dmarc: domain.dmarc.policy.unwrap_or(dmarc),
        mta_sts,
        max_age: max_age(mta_sts, domain),
        mx,
        policy_mx,
    }
}

/// How long senders may remember a policy in a stage, in seconds.
fn max_age(stage: StsStage, domain: &Domain) -> u32 {
    match stage {
        StsStage::Off | StsStage::Testing | StsStage::Withdrawn => 86_400,
        StsStage::Enforce => 604_800,
        StsStage::EnforceLong => domain.rollout.max_age,
    }
}
