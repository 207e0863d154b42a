//! The tables of a domain, and `[defaults]`, which holds what domains do not say themselves.

use std::ops::{Range, RangeInclusive};

use super::file::{DomainDraft, Shown};
use super::value::{Reader, Setting, Table};
use super::{
    Aim, Alignment, Bimi, Caa, CaaIssuer, Dmarc, DmarcPolicy, Domain, SpfPolicy, SpfTerm, StsStage, TlsReports,
};
use crate::diag::Place;
use crate::inventory::DkimAlgorithm;
use crate::names::{DomainName, MailAddress, NameError, shown};

/// What a table says of a domain: what is not written is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    mail: Option<bool>,
    dkim: Option<(Vec<DkimAlgorithm>, Place)>,
    spf: Option<SpfPolicy>,
    spf_also: Option<(Vec<SpfTerm>, Place)>,
    dmarc: SaidDmarc,
    rollout: SaidAim,
    tls_reports: Option<(TlsReports, Place)>,
    bimi: Option<(Bimi, Place)>,
    caa: SaidCaa,
    dnssec: Option<bool>,
}

#[derive(Clone, Debug, Default)]
struct SaidDmarc {
    policy: Option<DmarcPolicy>,
    sp: Option<DmarcPolicy>,
    np: Option<DmarcPolicy>,
    adkim: Option<Alignment>,
    aspf: Option<Alignment>,
    testing: Option<bool>,
    psd: Option<bool>,
    reports: Option<(MailAddress, Place)>,
    failure_reports: Option<(MailAddress, Place)>,
}

#[derive(Clone, Debug, Default)]
struct SaidAim {
    dmarc: Option<DmarcPolicy>,
    mta_sts: Option<(StsStage, Place)>,
    max_age: Option<u32>,
    spf: Option<SpfPolicy>,
}

#[derive(Clone, Debug, Default)]
struct SaidCaa {
    issue: Option<Vec<CaaIssuer>>,
    issuewild: Option<Vec<CaaIssuer>>,
    issuemail: Option<Vec<CaaIssuer>>,
    iodef: Option<String>,
}

impl Said {
    /// Fills what is not said from what domains have otherwise. What is said of a policy, be it fixed or an aim, stands in for
    /// either.
    pub(super) fn or(self, other: &Self) -> Self {
        let mut other = other.clone();
        if self.rollout.spf.is_some() {
            other.spf = None;
        }
        if self.rollout.dmarc.is_some() {
            other.dmarc.policy = None;
        }
        let (dmarc, aim, caa) = (other.dmarc, other.rollout, other.caa);
        Self {
            mail: self.mail.or(other.mail),
            dkim: self.dkim.or(other.dkim),
            spf: self.spf.or(other.spf),
            spf_also: self.spf_also.or(other.spf_also),
            dmarc: SaidDmarc {
                policy: self.dmarc.policy.or(dmarc.policy),
                sp: self.dmarc.sp.or(dmarc.sp),
                np: self.dmarc.np.or(dmarc.np),
                adkim: self.dmarc.adkim.or(dmarc.adkim),
                aspf: self.dmarc.aspf.or(dmarc.aspf),
                testing: self.dmarc.testing.or(dmarc.testing),
                psd: self.dmarc.psd.or(dmarc.psd),
                reports: self.dmarc.reports.or(dmarc.reports),
                failure_reports: self.dmarc.failure_reports.or(dmarc.failure_reports),
            },
            rollout: SaidAim {
                dmarc: self.rollout.dmarc.or(aim.dmarc),
                mta_sts: self.rollout.mta_sts.or(aim.mta_sts),
                max_age: self.rollout.max_age.or(aim.max_age),
                spf: self.rollout.spf.or(aim.spf),
            },
            tls_reports: self.tls_reports.or(other.tls_reports),
            bimi: self.bimi.or(other.bimi),
            caa: SaidCaa {
                issue: self.caa.issue.or(caa.issue),
                issuewild: self.caa.issuewild.or(caa.issuewild),
                issuemail: self.caa.issuemail.or(caa.issuemail),
                iodef: self.caa.iodef.or(caa.iodef),
            },
            dnssec: self.dnssec.or(other.dnssec),
        }
    }
}

/// A domain's name, its further names, and what its own table says; `[defaults]` are not in it yet.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: DomainName,
    pub(super) place: Place,
    pub(super) other_names: Vec<(DomainName, Place)>,
    pub(super) silent_names: Vec<(DomainName, Place)>,
    pub(super) said: Said,
}

impl Named {
    /// Returns the domain and each of its further names, as drafts that have what `defaults` say.
    pub(super) fn drafts(self, defaults: &Said, has_web: bool) -> impl Iterator<Item = DomainDraft> {
        let said = self.said.or(defaults);
        let first = draft(self.name.clone(), None, self.place, &said, has_web);
        let first = DomainDraft { silent_names: self.silent_names, ..first };
        let name = self.name;
        let others = self.other_names.into_iter();
        let others = others.map(move |(other, place)| draft(other, Some(name.clone()), place, &said, has_web));
        std::iter::once(first).chain(others)
    }
}

fn draft(name: DomainName, alias_of: Option<DomainName>, place: Place, said: &Said, has_web: bool) -> DomainDraft {
    let mail = said.mail.unwrap_or(true);
    let unsaid = Domain::new(name);
    // What stands in [defaults] for all may name one of them: its own record cannot include itself (RFC 7208 §5.2).
    let is_itself = |term: &SpfTerm| matches!(term, SpfTerm::Include(of) if of.as_str() == unsaid.name.as_str());
    let spf_also =
        said.spf_also.as_ref().map(|(terms, _)| terms.iter().filter(|term| !is_itself(term)).cloned().collect());
    let dkim = said.dkim.as_ref().map_or_else(|| unsaid.dkim.clone(), |(algorithms, _)| algorithms.clone());
    let aim = &said.rollout;
    // Without a web server nobody serves the policy.
    let mta_sts = if has_web { StsStage::EnforceLong } else { StsStage::Off };
    let domain = Domain {
        alias_of,
        mail,
        silent_names: Vec::new(),
        dkim: if mail { dkim } else { Vec::new() },
        spf: said.spf,
        spf_also: spf_also.unwrap_or_default(),
        dmarc: Dmarc {
            policy: said.dmarc.policy,
            sp: said.dmarc.sp,
            np: said.dmarc.np,
            adkim: said.dmarc.adkim.unwrap_or_default(),
            aspf: said.dmarc.aspf.unwrap_or_default(),
            testing: said.dmarc.testing.unwrap_or_default(),
            psd: said.dmarc.psd,
            reports: said.dmarc.reports.as_ref().map(|(address, _)| address.clone()),
            failure_reports: said.dmarc.failure_reports.as_ref().map(|(address, _)| address.clone()),
        },
        rollout: Aim {
            dmarc: aim.dmarc.unwrap_or(unsaid.rollout.dmarc),
            mta_sts: aim.mta_sts.as_ref().map_or(mta_sts, |(stage, _)| *stage),
            max_age: aim.max_age.unwrap_or(unsaid.rollout.max_age),
            spf: aim.spf.unwrap_or(unsaid.rollout.spf),
        },
        tls_reports: said.tls_reports.as_ref().map(|(to, _)| to.clone()),
        bimi: said.bimi.as_ref().map(|(bimi, _)| bimi.clone()).unwrap_or_default(),
        caa: Caa {
            issue: said.caa.issue.clone().unwrap_or_default(),
            issuewild: said.caa.issuewild.clone().unwrap_or_default(),
            issuemail: said.caa.issuemail.clone().unwrap_or_default(),
            iodef: said.caa.iodef.clone(),
        },
        dnssec: said.dnssec.unwrap_or_default(),
        ..unsaid
    };
    DomainDraft {
        domain,
        name: place,
        silent_names: Vec::new(),
        dkim: said.dkim.as_ref().map(|(_, place)| place.clone()),
        reports: said.dmarc.reports.as_ref().map(|(_, place)| place.clone()),
        failure_reports: said.dmarc.failure_reports.as_ref().map(|(_, place)| place.clone()),
        spf_also: said.spf_also.as_ref().map(|(_, place)| place.clone()),
        tls_reports: said.tls_reports.as_ref().map(|(_, place)| place.clone()),
        mta_sts: aim.mta_sts.as_ref().map(|(_, place)| place.clone()),
        bimi: said.bimi.as_ref().map(|(_, place)| place.clone()),
    }
}

impl Reader<'_> {
    /// Reads one `[[domain]]`.
    pub(super) fn domain(&mut self, table: &Table<'_>) -> Option<Named> {
        let name = self.required(table, "name", "\"example.com\"");
        let span = name.as_ref().map_or(0..0, |setting| setting.span.clone());
        let name = name.and_then(|setting| self.parse(&setting));
        self.rest_of_domain(table, name, span)
    }

    /// Reads what a domain's table or file says beside its name, which stands at the span.
    pub(super) fn rest_of_domain(
        &mut self,
        table: &Table<'_>,
        name: Option<DomainName>,
        span: Range<usize>,
    ) -> Option<Named> {
        let name = name.and_then(|name| self.short_enough(name, span.clone()));
        let said = self.said(table);
        let other_names = self.names(table, "other_names");
        let silent_names = self.names(table, "silent_names");
        Some(Named { name: name?, place: self.place(span), other_names, silent_names, said })
    }

    /// Reads what a domain's table or `[defaults]` says.
    pub(super) fn said(&mut self, table: &Table<'_>) -> Said {
        let mut said = Said {
            mail: table.get("mail").and_then(|setting| self.truth(&setting)),
            dkim: self.dkim(table),
            spf: table.get("spf").and_then(|setting| self.choice(&setting, &SPF_POLICIES)),
            spf_also: self.terms(table),
            tls_reports: self.tls_reports(table),
            bimi: self.bimi(table),
            dnssec: table.get("dnssec").and_then(|setting| self.truth(&setting)),
            ..Said::default()
        };
        if let Some(table) = table.get("dmarc").and_then(|setting| self.table(&setting, "domain.dmarc")) {
            said.dmarc = self.dmarc(&table);
        }
        if let Some(table) = table.get("rollout").and_then(|setting| self.table(&setting, "domain.rollout")) {
            said.rollout = self.aim(&table);
            self.fixed_and_aimed(&said, &table);
        }
        if let Some(table) = table.get("caa").and_then(|setting| self.table(&setting, "domain.caa")) {
            said.caa = self.caa(&table);
        }
        said
    }

    fn placed_choice<T: Copy>(
        &mut self,
        table: &Table<'_>,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<(T, Place)> {
        let setting = table.get(key)?;
        self.choice(&setting, choices).map(|value| (value, self.place(setting.span)))
    }

    fn placed_address(&mut self, table: &Table<'_>, key: &'static str) -> Option<(MailAddress, Place)> {
        let setting = table.get(key)?;
        self.parse(&setting).map(|value| (value, self.place(setting.span)))
    }

    fn dmarc(&mut self, table: &Table<'_>) -> SaidDmarc {
        let choice =
            |reader: &mut Self, key| table.get(key).and_then(|setting| reader.choice(&setting, &DMARC_POLICIES));
        let nearness = |reader: &mut Self, key| table.get(key).and_then(|setting| reader.choice(&setting, &ALIGNMENTS));
        SaidDmarc {
            policy: choice(self, "policy"),
            sp: choice(self, "sp"),
            np: choice(self, "np"),
            adkim: nearness(self, "adkim"),
            aspf: nearness(self, "aspf"),
            testing: table.get("testing").and_then(|setting| self.truth(&setting)),
            psd: table.get("psd").and_then(|setting| self.truth(&setting)),
            reports: self.placed_address(table, "reports"),
            failure_reports: self.placed_address(table, "failure_reports"),
        }
    }

    fn aim(&mut self, table: &Table<'_>) -> SaidAim {
        SaidAim {
            dmarc: table.get("dmarc").and_then(|setting| self.choice(&setting, &DMARC_POLICIES)),
            mta_sts: self.placed_choice(table, "mta_sts", &STS_AIMS),
            max_age: table
                .get("max_age")
                .and_then(|setting| self.number(&setting, MAX_AGE_DAYS, "days"))
                .map(|days| u32::from(days) * 86_400),
            spf: table.get("spf").and_then(|setting| self.choice(&setting, &SPF_POLICIES)),
        }
    }

    /// A policy is either written down, or reached step by step.
    fn fixed_and_aimed(&mut self, said: &Said, table: &Table<'_>) {
        let both = [("spf", "spf", said.spf.is_some()), ("dmarc", "dmarc.policy", said.dmarc.policy.is_some())];
        for (aim, fixed, is_fixed) in both {
            if let Some(setting) = table.get(aim).filter(|_| is_fixed) {
                let message = format!("`rollout.{aim}` and `{fixed}` both say what the policy is");
                let help = format!("remove `{fixed}` to come to the aim step by step, or `rollout.{aim}` to stay");
                self.error("fixed-and-aimed", message, (setting.span, "an aim"), help);
            }
        }
    }

    fn caa(&mut self, table: &Table<'_>) -> SaidCaa {
        let mut list = |key| {
            let setting = table.get(key)?;
            let values = self.distinct(&setting, Self::issuer)?;
            self.not_empty(&setting, "write [\";\"] if nobody may, or leave it out");
            Some(values.into_iter().map(|(value, _)| value).collect())
        };
        let (issue, issuewild, issuemail) = (list("issue"), list("issuewild"), list("issuemail"));
        SaidCaa { issue, issuewild, issuemail, iodef: table.get("iodef").and_then(|setting| self.contact(&setting)) }
    }

    fn issuer(&mut self, setting: &Setting<'_>) -> Option<CaaIssuer> {
        let text = self.text(setting)?;
        self.checked(text.parse(), setting.span.clone())
    }

    /// Reads a mail address or an `https://` URI, as a URI.
    fn contact(&mut self, setting: &Setting<'_>) -> Option<String> {
        let text = self.text(setting)?;
        if text.starts_with("https:") {
            return self.checked(https(text), setting.span.clone());
        }
        let address: MailAddress = self.checked(text.parse(), setting.span.clone())?;
        Some(address.to_uri())
    }

    fn tls_reports(&mut self, table: &Table<'_>) -> Option<(TlsReports, Place)> {
        let setting = table.get("tls_reports")?;
        let text = self.text(&setting)?;
        let to = if text.starts_with("https:") {
            self.checked(https(text), setting.span.clone()).map(TlsReports::Https)
        } else {
            self.checked(text.parse(), setting.span.clone()).map(TlsReports::Mail)
        };
        to.map(|to| (to, self.place(setting.span)))
    }

    fn bimi(&mut self, table: &Table<'_>) -> Option<(Bimi, Place)> {
        let setting = table.get("bimi")?;
        let (word, body) = self.variant(&setting, "domain.bimi")?;
        let place = self.place(setting.span.clone());
        if word == "declined" {
            self.nothing(body, "domain.bimi.declined");
            return Some((Bimi::Declined, place));
        }
        let Some(body) = body else {
            self.needs_table(&setting, word, "domain.bimi.logo");
            return None;
        };
        let table = self.table(&body, "domain.bimi.logo")?;
        let file = self.required(&table, "file", "\"logo.svg\"").and_then(|setting| self.file_name(&setting, ".svg"));
        let certificate = table.get("certificate").and_then(|setting| self.file_name(&setting, ".pem"));
        let base = table.get("base").and_then(|setting| {
            let text = self.text(&setting)?;
            self.checked(https(text).and_then(ends_in_slash), setting.span)
        });
        Some((Bimi::Logo { file: file?, certificate, base }, place))
    }

    /// Reads the name of a file in `bimi/`: it becomes a part of a URI and of paths, and web servers tell its type by its end.
    fn file_name(&mut self, setting: &Setting<'_>, end: &str) -> Option<String> {
        let text = self.text(setting)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = (1..=100).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.bytes().all(plain)
            && text.ends_with(end);
        let refuse = || NameError {
            problem: format!("`{}` is no name of a file in bimi/", shown(text)),
            mend: format!(
                "write 1 to 100 letters, digits and `. _ -` that end in `{end}`; the file lies in the directory bimi/ beside \
                 postseal.toml"
            ),
        };
        self.checked(is_name.then(|| text.to_owned()).ok_or_else(refuse), setting.span.clone())
    }

    fn terms(&mut self, table: &Table<'_>) -> Option<(Vec<SpfTerm>, Place)> {
        let setting = table.get("spf_also")?;
        let read = |reader: &mut Self, element: &Setting<'_>| {
            let text = reader.text(element)?;
            reader.checked(text.parse::<SpfTerm>(), element.span.clone())
        };
        let values = self.distinct(&setting, read)?;
        Some((values.into_iter().map(|(term, _)| term).collect(), self.place(setting.span)))
    }

    fn names(&mut self, table: &Table<'_>, key: &'static str) -> Vec<(DomainName, Place)> {
        let Some(setting) = table.get(key) else { return Vec::new() };
        let read = |reader: &mut Self, element: &Setting<'_>| {
            let name = reader.parse(element)?;
            reader.short_enough(name, element.span.clone())
        };
        self.distinct(&setting, read).unwrap_or_default()
    }

    /// Refuses a domain whose name leaves no room for what is put before or behind it.
    fn short_enough(&mut self, name: DomainName, span: Range<usize>) -> Option<DomainName> {
        if name.as_str().len() <= DOMAIN_LIMIT {
            return Some(name);
        }
        let problem = format!("`{}` is too long for the names of its DNS records and files", shown(name.as_str()));
        let mend = format!("a domain of a mail site has at most {DOMAIN_LIMIT} characters");
        self.checked(Err(NameError { problem, mend }), span)
    }

    fn dkim(&mut self, table: &Table<'_>) -> Option<(Vec<DkimAlgorithm>, Place)> {
        let setting = table.get("dkim")?;
        let read = |reader: &mut Self, element: &Setting<'_>| reader.choice(element, &DKIM_ALGORITHMS).map(Shown);
        let values = self.distinct(&setting, read).unwrap_or_default();
        let mut algorithms: Vec<_> = values.into_iter().map(|(Shown(algorithm), _)| algorithm).collect();
        algorithms.sort();
        self.not_empty(&setting, "write [\"rsa\", \"ed25519\"], or leave `dkim` out, which means the same");
        if algorithms == [DkimAlgorithm::Ed25519] {
            let message = "signing with Ed25519 alone leaves mail unsigned for many receivers";
            let help = "write dkim = [\"rsa\", \"ed25519\"]: receivers that know both may use either";
            self.error("dkim-ed25519-alone", message, (setting.span.clone(), "only `ed25519`"), help);
        }
        Some((algorithms, self.place(setting.span)))
    }
}

/// Reads an `https://` URI of characters that stand for themselves in every record (RFC 3986 §2): no comma, no `!`, no `;`, which
/// end a URI in TLS-RPT, DMARC and BIMI records.
fn https(text: &str) -> Result<String, NameError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/?&=%:@+".contains(&byte);
    let host = text.strip_prefix("https://").and_then(|rest| rest.split(['/', ':', '?']).next());
    let is_uri = text.len() <= 200
        && text.bytes().all(plain)
        && host.is_some_and(|host| host.contains('.') && host.parse::<DomainName>().is_ok());
    is_uri.then(|| text.to_owned()).ok_or_else(|| NameError {
        problem: format!("`{}` is no URI that a DNS record can name", shown(text)),
        mend: "write one such as https://reports.example.com/tls, of at most 200 characters, without `,`, `;` or `!`"
            .to_owned(),
    })
}

fn ends_in_slash(text: String) -> Result<String, NameError> {
    if text.ends_with('/') {
        return Ok(text);
    }
    Err(NameError {
        problem: format!("`{}` does not end in `/`", shown(&text)),
        mend: "write the directory that the files lie in, such as https://www.example.com/bimi/".to_owned(),
    })
}

/// Of 253 characters that a name in DNS has, `202611r._domainkey.` takes 19; of 255 that a file's name has, `.202611r.key` 12.
const DOMAIN_LIMIT: usize = 220;

/// A policy that is forgotten within a day protects nobody; the longest is a year (RFC 8461 §3.2).
const MAX_AGE_DAYS: RangeInclusive<u16> = 7..=365;

const ALIGNMENTS: [(&str, Alignment); 2] = [("relaxed", Alignment::Relaxed), ("strict", Alignment::Strict)];

const DKIM_ALGORITHMS: [(&str, DkimAlgorithm); 2] = [("rsa", DkimAlgorithm::Rsa), ("ed25519", DkimAlgorithm::Ed25519)];

const DMARC_POLICIES: [(&str, DmarcPolicy); 3] =
    [("none", DmarcPolicy::None), ("quarantine", DmarcPolicy::Quarantine), ("reject", DmarcPolicy::Reject)];

const SPF_POLICIES: [(&str, SpfPolicy); 2] = [("softfail", SpfPolicy::SoftFail), ("fail", SpfPolicy::Fail)];

const STS_AIMS: [(&str, StsStage); 3] =
    [("off", StsStage::Off), ("testing", StsStage::Testing), ("enforce", StsStage::EnforceLong)];
