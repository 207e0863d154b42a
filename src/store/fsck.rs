//! Checks a site's ledger and files against each other, and changes nothing: what must be true, whatever was killed, restored
//! or edited. Everything is found out anew from what lies there.

use std::collections::{BTreeSet, HashMap, HashSet};

use camino::{Utf8Path, Utf8PathBuf};

use crate::dkim::{self, private};
use crate::inventory::{CertificateStatus, Crl, DkimKey, DkimState};
use crate::keys::PrivateKey;
use crate::names::{DeviceName, Digest, MailAddress, Serial, shown};
use crate::password;
use crate::pki::Certificate;
use crate::pki::{audit, crl};
use crate::secret::Secret;
use crate::store::files::{self, ItemKind, StoreError};
use crate::store::keys::{DEVICE_PASSWORD, KEY, Passphrase, SITE_CA, is_bundle, own_names};
use crate::store::ledger::{CertificateRow, CrlRow};
use crate::store::{Store, Writer};

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What to do.
    pub mend: String,
    /// What is wrong.
    pub problem: String,
    /// How much it matters.
    pub weight: Weight,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It is no fault: something lies about that may be looked at.
    Note,
    /// Files are missing, old or open to others; the ledger is whole.
    Files,
    /// The ledger, or a key that it needs, cannot be relied on.
    Ledger,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is not as it must be, the gravest first.
    pub findings: Vec<Finding>,
    /// How many certificates were looked at.
    pub certificates: usize,
    /// How many keys.
    pub keys: usize,
    /// How many files below state/ and handout/.
    pub files: usize,
}

impl Checked {
    /// Tells whether all is as it must be; something may lie about all the same.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.weight == Weight::Note)
    }

    /// Adds a finding of files that the caller made out.
    pub fn add(&mut self, mend: impl Into<String>, problem: impl Into<String>) {
        self.findings.push(Finding { mend: mend.into(), problem: problem.into(), weight: Weight::Files });
        self.sort();
    }

    fn sort(&mut self) {
        self.findings.sort_by(|a, b| (b.weight, &a.problem, &a.mend).cmp(&(a.weight, &b.problem, &b.mend)));
    }
}

const BACKUP: &str = "bring state/ back from a backup";
const NEXT_WRITER: &str = "run postseal render";

impl Store {
    /// Checks ledger and files. `progress` is told how many of how many certificates are done.
    ///
    /// # Errors
    /// Only if the ledger cannot be read at all.
    pub fn check(&self, progress: &mut dyn FnMut(usize, usize)) -> Result<Checked, StoreError> {
        let mut checks = Checks { store: self, checked: Checked::default(), keys: BTreeSet::new() };
        for problem in self.ledger().file_problems()? {
            checks.wrong(BACKUP, format!("state/ledger.sqlite is damaged: {problem}"));
        }
        let of_certificates = checks.certificates(progress);
        checks.told(of_certificates);
        for step in [Checks::other_keys, Checks::strange_keys, Checks::accounts, Checks::handouts, Checks::leftovers] {
            let done = step(&mut checks);
            checks.told(done);
        }
        for directory in [self.state(), self.site().path("handout")] {
            let done = checks.modes(&directory);
            checks.told(done);
        }
        match self.lock_is_stale() {
            Ok(false) => {}
            Ok(true) => checks.files(NEXT_WRITER, "postseal.lock does not say what the ledger says"),
            Err(error) => checks.told(Err(error)),
        }
        checks.checked.sort();
        Ok(checks.checked)
    }
}

struct Checks<'a> {
    store: &'a Store,
    checked: Checked,
    /// The names of the files of all keys that are referred to.
    keys: BTreeSet<String>,
}

/// What is remembered of the certificates that were seen.
#[derive(Default)]
struct Seen {
    site_cas: Vec<Certificate>,
    /// The twins of the issuing CAs for all, by the serial of these.
    shared: HashMap<String, Certificate>,
    /// The twins that certificates have of their own, by the serial of these; only of those with a CRL.
    own: HashMap<String, Certificate>,
    with_crl: HashSet<String>,
    /// What each recorded certificate is worth.
    statuses: HashMap<String, String>,
    /// Every serial in a certificate, of leaves, issuing CAs and twins, and whose it is.
    serials: HashMap<String, String>,
    /// What each recorded certificate is for, by its serial.
    purposes: HashMap<String, String>,
    /// What took the place of what: serial, purpose, successor.
    superseded: Vec<(String, String, String)>,
    /// The twins of all that is live, by the serial that the ledger sorts them by.
    live: Vec<(String, Digest)>,
}

impl Checks<'_> {
    fn add(&mut self, weight: Weight, mend: impl Into<String>, problem: impl Into<String>) {
        self.checked.findings.push(Finding { mend: mend.into(), problem: problem.into(), weight });
    }

    fn wrong(&mut self, mend: impl Into<String>, problem: impl Into<String>) {
        self.add(Weight::Ledger, mend, problem);
    }

    fn files(&mut self, mend: impl Into<String>, problem: impl Into<String>) {
        self.add(Weight::Files, mend, problem);
    }

    /// What hinders a check is a finding, too: the others go on.
    fn told(&mut self, done: Result<(), StoreError>) {
        let Err(error) = done else { return };
        let text = error.to_string();
        let (problem, mend) = text.split_once("; ").unwrap_or((&text, BACKUP));
        self.wrong(mend, problem);
    }

    fn certificates(&mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<(), StoreError> {
        let store = self.store;
        let total = store.ledger().certificate_count()?;
        let crls = store.ledger().crl_rows()?;
        let with_crl = crls.iter().map(|row| row.issuer.clone()).collect();
        let mut seen = Seen { with_crl, ..Seen::default() };
        store.ledger().each_certificate(|row| {
            self.certificate(row, &mut seen);
            self.checked.certificates += 1;
            progress(self.checked.certificates, total);
        })?;
        for (serial, purpose, by) in std::mem::take(&mut seen.superseded) {
            if seen.purposes.get(&by) != Some(&purpose) {
                self.wrong(
                    BACKUP,
                    format!("{} is replaced by {by}, which is no newer one of it", named(&purpose, &serial)),
                );
            }
        }
        if seen.site_cas.is_empty() {
            self.wrong(BACKUP, "the ledger holds no CA");
        }
        self.trust_list(&mut seen)?;
        self.history(&seen)?;
        self.handed_cas(&seen)?;
        if store.ledger().placeholder()?.is_none() {
            self.wrong(BACKUP, "the ledger holds no placeholder for the empty trust list");
        }
        for row in crls {
            self.crl(&row, &seen);
        }
        Ok(())
    }

    fn certificate(&mut self, row: &CertificateRow, seen: &mut Seen) {
        let purpose = purpose(row);
        let name = named(&purpose, &row.serial);
        seen.purposes.insert(row.serial.clone(), purpose.clone());
        seen.statuses.insert(row.serial.clone(), row.status.clone());
        if let Some(by) = &row.superseded_by {
            seen.superseded.push((row.serial.clone(), purpose, by.clone()));
        }
        let Ok(certificate) = Certificate::from_pem(&row.certificate) else {
            return self.wrong(BACKUP, format!("{name} cannot be read"));
        };
        for what in differences(row, &certificate) {
            self.wrong(BACKUP, format!("{name} has another {what} than recorded"));
        }
        self.serial(&certificate, &name, seen);
        let twin = self.twin(row, &name, seen);
        let judged = match row.kind.as_str() {
            "site_ca" => audit::judge_site_ca(&certificate),
            "server" => audit::judge_server(&certificate, row.host.as_deref().unwrap_or_default(), &seen.site_cas),
            "issuing_ca" => twin.as_ref().and_then(|twin| audit::judge_pair(&certificate, twin, &seen.site_cas)),
            _ => self.client(row, &certificate, twin.as_ref(), seen),
        };
        if let Some(problem) = judged {
            self.wrong(BACKUP, format!("{name} is not in order: {problem}"));
        }
        if let (Some(twin), true) = (&twin, row.status == CertificateStatus::Live.as_str()) {
            seen.live.push((row.serial.clone(), twin.fingerprint()));
        }
        if let Some(key) = &row.key {
            self.key_of_certificate(key, row, &certificate, &name);
        }
        match (row.kind.as_str(), twin) {
            ("site_ca", _) => seen.site_cas.push(certificate),
            ("issuing_ca", Some(twin)) => drop(seen.shared.insert(row.serial.clone(), twin)),
            ("client", Some(twin)) if seen.with_crl.contains(&row.serial) => {
                drop(seen.own.insert(row.serial.clone(), twin));
            }
            _ => {}
        }
    }

    /// Reads the twin of a row, if it has one.
    fn twin(&mut self, row: &CertificateRow, name: &str, seen: &mut Seen) -> Option<Certificate> {
        let Ok(twin) = Certificate::from_pem(row.twin.as_ref()?) else {
            self.wrong(BACKUP, format!("the twin of {name} cannot be read"));
            return None;
        };
        self.serial(&twin, &format!("the twin of {name}"), seen);
        Some(twin)
    }

    /// Judges a client's certificate; one with an issuing CA of its own together with that.
    fn client(
        &mut self,
        row: &CertificateRow,
        leaf: &Certificate,
        twin: Option<&Certificate>,
        seen: &mut Seen,
    ) -> Option<&'static str> {
        let address = row.address.as_deref().unwrap_or_default();
        if let Some(issuer) = &row.issuer {
            let Some(twin) = seen.shared.get(issuer) else { return Some("its issuing CA is not recorded") };
            return audit::judge_client(leaf, address, twin);
        }
        let twin = twin?;
        let Ok(issuing) = Certificate::from_pem(row.issuing.as_deref().unwrap_or_default()) else {
            return Some("its issuing CA cannot be read");
        };
        self.serial(&issuing, &format!("the issuing CA of {}", named(address, &row.serial)), seen);
        audit::judge_pair(&issuing, twin, &seen.site_cas).or_else(|| audit::judge_client(leaf, address, twin))
    }

    fn serial(&mut self, certificate: &Certificate, name: &str, seen: &mut Seen) {
        if let Some(other) = seen.serials.insert(certificate.facts().serial.clone(), name.to_owned()) {
            self.wrong(BACKUP, format!("{name} has the serial of {other}"));
        }
    }

    fn key_of_certificate(&mut self, digest: &str, row: &CertificateRow, certificate: &Certificate, name: &str) {
        let Some(key) = self.key(digest, name) else { return };
        let private = if row.kind == "server" {
            PrivateKey::from_pem(&key)
        } else {
            // An authority's key is encrypted; what opens it may be elsewhere.
            let Ok(Some(passphrase)) = self.store.passphrase(Passphrase::SiteCa) else { return };
            let text = passphrase.expose();
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            let text = Secret::new(text.strip_suffix(b"\r").unwrap_or(text).to_vec());
            let opened = PrivateKey::decrypt(key.expose_str().unwrap_or_default(), &text);
            if opened.is_err() && row.status == CertificateStatus::Live.as_str() && row.superseded_by.is_none() {
                let problem = format!("state/ca.passphrase does not open the key of {name}");
                return self.files("look which passphrase belongs to this site", problem);
            }
            opened
        };
        if !private.is_ok_and(|private| certificate.belongs_to(&private)) && row.superseded_by.is_none() {
            self.wrong(BACKUP, format!("the key of {name} does not belong to it"));
        }
    }

    /// Reads a key that the ledger refers to, once it proved to be it.
    fn key(&mut self, digest: &str, name: &str) -> Option<Secret> {
        let Ok(digest) = digest.parse::<Digest>() else {
            self.wrong(BACKUP, format!("the key of {name} has no digest"));
            return None;
        };
        if self.keys.insert(digest.short()) {
            self.checked.keys += 1;
        }
        let place = format!("state/keys/{}{KEY}", digest.short());
        match self.store.key(&digest) {
            Ok(key) => Some(key),
            // The walk through state/ says so of every file.
            Err(StoreError::Readable { .. }) => None,
            Err(StoreError::Tampered(path)) if !path.exists() => {
                self.wrong(format!("bring {place} back from a backup"), format!("the key of {name} is missing"));
                None
            }
            Err(_) => {
                self.wrong(format!("bring {place} back from a backup"), format!("the key of {name} is another one"));
                None
            }
        }
    }

    fn other_keys(&mut self) -> Result<(), StoreError> {
        for row in self.store.ledger().other_keys()? {
            let Some(key) = self.key(&row.digest, &row.what) else { continue };
            let public = row.public.unwrap_or_default();
            if !holds_public(&key, &public) {
                self.wrong(BACKUP, format!("the key of {} is not the one whose public half is recorded", row.what));
            }
        }
        Ok(())
    }

    fn strange_keys(&mut self) -> Result<(), StoreError> {
        let ever = self.store.ledger().dkim_keys_ever()?;
        let destroyed: HashMap<String, &DkimKey> =
            ever.iter().filter(|key| key.state == DkimState::Destroyed).map(|key| (key.key.short(), key)).collect();
        for item in files::list(&self.store.state().join("keys"))? {
            let name = item.path.file_name().unwrap_or_default().to_owned();
            let of_destroyed = name.strip_suffix(KEY).filter(|name| !self.keys.contains(*name));
            if let Some(key) = of_destroyed.and_then(|name| destroyed.get(name)) {
                let whose = dkim::record_name(&key.selector, &key.domain);
                self.files(
                    NEXT_WRITER,
                    format!("state/keys/{name} is the private half of {whose}, which is destroyed"),
                );
                continue;
            }
            if !name.strip_suffix(KEY).is_some_and(|name| self.keys.contains(name)) && !name.starts_with('.') {
                let problem = format!("state/keys/{} is a key that no record names", shown(&name));
                self.add(Weight::Note, format!("{NEXT_WRITER}, which sets it aside"), problem);
            }
        }
        Ok(())
    }

    /// Compares the list that daemons trust with what is live.
    fn trust_list(&mut self, seen: &mut Seen) -> Result<(), StoreError> {
        let Ok(list) = self.store.ledger().trust_list() else {
            self.wrong(BACKUP, "the trust list would be empty, and smtpd would not start");
            return Ok(());
        };
        seen.live.sort();
        let mut wanted: Vec<Digest> = seen.live.iter().map(|(_, twin)| *twin).collect();
        if wanted.is_empty() {
            let placeholder = self.store.ledger().placeholder()?;
            wanted.extend(placeholder.and_then(|pem| Certificate::from_pem(&pem).ok()).map(|twin| twin.fingerprint()));
        }
        let Ok(listed) = Certificate::all_from_pem(&list) else {
            self.wrong(BACKUP, "the trust list cannot be read");
            return Ok(());
        };
        if listed.is_empty() || listed.iter().any(|twin| !twin.facts().is_twin()) {
            self.wrong(BACKUP, "the trust list does not hold twins alone, one at least");
        }
        if listed.iter().map(Certificate::fingerprint).ne(wanted) {
            self.wrong("report this as a bug", "the trust list is not what is live in the ledger");
        }
        Ok(())
    }

    /// Whom people are told to trust is, or was, the site's own CA.
    fn handed_cas(&mut self, seen: &Seen) -> Result<(), StoreError> {
        for person in files::list(&self.store.site().path("handout"))? {
            for device in files::list(&person.path)? {
                let path = device.path.join(SITE_CA);
                let Some(text) = files::read(&path)? else { continue };
                let handed = Certificate::from_pem(&String::from_utf8_lossy(&text));
                if !handed.is_ok_and(|handed| seen.site_cas.iter().any(|ca| ca.der() == handed.der())) {
                    let mend = "run postseal render, or take it from postseal ca show --pem";
                    self.files(mend, format!("{path} is not this site's CA"));
                }
            }
        }
        Ok(())
    }

    /// What happened is recorded once more, in words: a row that somebody took back or away does not agree with it.
    fn history(&mut self, seen: &Seen) -> Result<(), StoreError> {
        for event in self.store.ledger().events()? {
            let Some(serial) = event.detail.get("serial").and_then(serde_json::Value::as_str) else { continue };
            let name = format!("the certificate {}", shown(serial));
            match (event.what.as_str(), seen.statuses.get(serial)) {
                ("client-certificate-issued" | "client-certificate-renewed" | "server-certificate-issued", None) => {
                    self.wrong(BACKUP, format!("{name} was issued, and is recorded no more"));
                }
                ("client-certificate-revoked", Some(status)) if status != CertificateStatus::Revoked.as_str() => {
                    self.wrong(BACKUP, format!("{name} was revoked, and is recorded as {status}"));
                }
                _ => {}
            }
        }
        self.stages()?;
        self.lives()
    }

    /// A domain stands where the last step of its rollout led.
    fn stages(&mut self) -> Result<(), StoreError> {
        let mut last: HashMap<(String, String), String> = HashMap::new();
        for event in self.store.ledger().events()?.into_iter().filter(|event| event.what == "rollout-moved") {
            let word = |name| event.detail.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
            if let (Some(track), Some(to)) = (word("track"), word("to")) {
                last.insert((event.subject.clone(), track), to);
            }
        }
        let rollouts = self.store.ledger().rollouts()?;
        let recorded: HashMap<(&str, &str), &str> = rollouts
            .iter()
            .map(|one| ((one.domain.as_str(), one.stage.track().as_str()), one.stage.as_str()))
            .collect();
        for ((domain, track), to) in last {
            let is = recorded.get(&(domain.as_str(), track.as_str())).copied().unwrap_or("nothing");
            if is != to {
                let (domain, track, to) = (shown(&domain), shown(&track), shown(&to));
                self.wrong(BACKUP, format!("{track} of {domain} was moved to {to}, and is recorded as {is}"));
            }
        }
        Ok(())
    }

    /// A DKIM key never goes back to an earlier state: what was revoked or destroyed signs nothing again.
    fn lives(&mut self) -> Result<(), StoreError> {
        let ever = self.store.ledger().dkim_keys_ever()?;
        let states: HashMap<String, DkimState> =
            ever.iter().map(|key| (dkim::record_name(&key.selector, &key.domain), key.state)).collect();
        for event in self.store.ledger().events()? {
            let (least, did) = match event.what.as_str() {
                "dkim-key-made" | "dkim-key-imported" => (DkimState::Generated, "made"),
                "dkim-key-activated" => (DkimState::Active, "activated"),
                "dkim-key-retired" | "dkim-key-compromised" => (DkimState::Revoked, "revoked"),
                "dkim-key-destroyed" => (DkimState::Destroyed, "destroyed"),
                _ => continue,
            };
            let name = shown(&event.subject);
            match states.get(&event.subject) {
                None => self.wrong(BACKUP, format!("{name} was {did}, and is recorded no more")),
                Some(state) if *state < least => {
                    self.wrong(BACKUP, format!("{name} was {did}, and is recorded as {}", state.as_str()));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn crl(&mut self, row: &CrlRow, seen: &Seen) {
        let name = format!("the CRL of the issuing CA {}", shown(&row.issuer));
        // The one for all, or that of a single certificate, which is called by the serial of the certificate.
        let read = seen
            .shared
            .get(&row.issuer)
            .or_else(|| seen.own.get(&row.issuer))
            .and_then(|twin| crl::Seen::signed_by(&row.pem, twin));
        let Some(crl) = read else {
            return self.wrong(BACKUP, format!("{name} cannot be read, or another signed it"));
        };
        let seconds =
            |one: Crl| (i64::from(one.number), one.this_update.unix_timestamp(), one.next_update.unix_timestamp());
        if crl.recorded().map(seconds) != Some((row.number, row.this_update, row.next_update)) {
            self.wrong(BACKUP, format!("{name} has another number or other dates than recorded"));
        }
    }

    fn accounts(&mut self) -> Result<(), StoreError> {
        let credentials = self.store.ledger().credentials()?;
        for line in credentials.expose_str().unwrap_or_default().lines() {
            let (address, hash) = line.split_once(':').unwrap_or((line, ""));
            if !password::is_hash(hash) {
                let mend = format!("run postseal user passwd {}", crate::names::shell_word(address));
                self.wrong(mend, format!("what is recorded as the password of {address} is no bcrypt hash"));
            }
        }
        Ok(())
    }

    /// Nothing in a directory of secrets is open to others, or leads elsewhere.
    fn modes(&mut self, directory: &Utf8Path) -> Result<(), StoreError> {
        for item in files::list(directory)? {
            let word = crate::names::shell_word(item.path.as_str());
            if item.kind == ItemKind::Other {
                self.files(format!("look at {word}"), format!("{} is no file", item.path));
            } else if item.mode & 0o077 != 0 {
                let mend = format!("if nobody read it, run chmod go= {word}");
                self.files(mend, format!("others may read {} (mode {:04o})", item.path, item.mode));
            }
            if item.kind == ItemKind::Directory {
                self.modes(&item.path)?;
            }
            // What SQLite keeps beside the ledger comes and goes with those who read.
            self.checked.files += usize::from(!item.path.as_str().contains("ledger.sqlite-"));
        }
        Ok(())
    }

    /// What a person is to be given and the passwords belong together.
    fn handouts(&mut self) -> Result<(), StoreError> {
        let inventory = self.store.inventory()?;
        let mut known = HashSet::new();
        for certificate in inventory.client_certificates.iter().filter(|certificate| certificate.is_current()) {
            let (address, device) = (&certificate.address, &certificate.device);
            known.insert((address, device));
            let handout = self.store.handout_path(address, device);
            let bundles = self.bundles(address, &handout)?;
            let password = self.store.passphrase_path(Passphrase::Device(address, device));
            let has_password = files::exists(&password)?;
            if certificate.handed_over.is_some() && (!bundles.is_empty() || has_password) {
                self.files(NEXT_WRITER, format!("{handout} was handed over, and is still here"));
            } else if bundles.is_empty() && has_password {
                let mend = done_command(address, device);
                self.files(mend, format!("{password} opens a .p12 file that is not here any more"));
            } else if bundles.iter().any(|name| is_bundle(name)) && !has_password {
                let mend = format!("issue another certificate, or, if they have it, {}", done_command(address, device));
                self.files(mend, format!("the password of the .p12 in {handout} is missing"));
            }
        }
        self.strange_handouts(&known)
    }

    /// Returns which files of a handout are there; a PKCS#12 file that is cut off is told.
    fn bundles(&mut self, address: &MailAddress, handout: &Utf8Path) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        for name in own_names(address) {
            let path = handout.join(&name);
            if files::kind(&path)? != Some(ItemKind::File) {
                continue;
            }
            if is_bundle(&name) && !files::read_secret(&path).is_ok_and(|bundle| bundle.is_some_and(is_whole)) {
                self.files("issue another certificate", format!("{path} is no whole PKCS#12 file"));
            }
            found.push(name);
        }
        Ok(found)
    }

    /// Passwords and handouts of devices that have no certificate.
    fn strange_handouts(&mut self, known: &HashSet<(&MailAddress, &DeviceName)>) -> Result<(), StoreError> {
        let strange = |person: &Utf8Path, device: &str| {
            let address = MailAddress::of_path_component(person.file_name().unwrap_or_default());
            let device: Option<DeviceName> = device.parse().ok();
            address.zip(device).is_some_and(|(address, device)| !known.contains(&(&address, &device)))
        };
        let mut found: Vec<Utf8PathBuf> = Vec::new();
        for person in files::list(&self.store.state().join("passwords"))? {
            for item in files::list_in(&person)? {
                let name = item.path.file_name().unwrap_or_default();
                let device = name.strip_suffix(DEVICE_PASSWORD);
                found.extend(device.filter(|device| strange(&person.path, device)).map(|_| item.path.clone()));
            }
        }
        for person in files::list(&self.store.site().path("handout"))? {
            for item in files::list_in(&person)? {
                let is_empty = files::list_in(&item)?.iter().all(|file| file.path.file_name() == Some(SITE_CA));
                if strange(&person.path, item.path.file_name().unwrap_or_default()) && !is_empty {
                    found.push(item.path.clone());
                }
            }
        }
        for path in found {
            self.files(format!("{NEXT_WRITER}, which sets it aside"), format!("{path} belongs to no certificate"));
        }
        Ok(())
    }

    /// What killed runs left.
    fn leftovers(&mut self) -> Result<(), StoreError> {
        let state = self.store.state();
        for (name, mend) in
            [("incoming", NEXT_WRITER), ("swept", "look whether something in it is missed, and remove it")]
        {
            if !files::list(&state.join(name))?.is_empty() {
                self.add(Weight::Note, mend, format!("{} holds what a run that was killed left", state.join(name)));
            }
        }
        for name in ["password.pending", "handed-over.pending"] {
            if files::exists(&state.join(name))? {
                self.add(Weight::Note, NEXT_WRITER, format!("{} is left of a run that was killed", state.join(name)));
            }
        }
        for directory in [self.store.site().root(), &state] {
            let left = files::list(directory)?.into_iter().filter(files::is_leftover);
            for item in left {
                self.add(Weight::Note, NEXT_WRITER, format!("{} is left of a run that was killed", item.path));
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Refuses a site, before it is put into its place, whose ledger cannot be relied on.
    pub fn refuse_damage(&self) -> Result<(), StoreError> {
        let checked = self.check(&mut |_, _| ())?;
        let damage = checked.findings.into_iter().find(|finding| finding.weight == Weight::Ledger);
        damage.map_or(Ok(()), |finding| Err(StoreError::Damaged(finding.problem)))
    }
}

fn done_command(address: &MailAddress, device: &DeviceName) -> String {
    format!("run postseal user handout {} --device {device} --done", crate::names::shell_word(address.as_str()))
}

/// Says what a certificate is for; what takes its place is for the same.
fn purpose(row: &CertificateRow) -> String {
    match (row.kind.as_str(), &row.host, &row.address, &row.device) {
        ("site_ca", ..) => "the site CA".to_owned(),
        ("issuing_ca", ..) => "the issuing CA".to_owned(),
        (_, Some(host), ..) => shown(host),
        (_, _, Some(address), Some(device)) => format!("{} for {}", shown(address), shown(device)),
        _ => "a certificate".to_owned(),
    }
}

fn named(purpose: &str, serial: &str) -> String {
    format!("{purpose} ({})", shown(serial))
}

/// Says what of a certificate is not as its row tells.
fn differences(row: &CertificateRow, certificate: &Certificate) -> Vec<&'static str> {
    let facts = certificate.facts();
    // A CA that was imported has whatever serial somebody else gave it; the row's is postseal's own then.
    let is_foreign = row.kind == "site_ca" && facts.serial.parse::<Serial>().is_err();
    let all = [
        ("serial", is_foreign || facts.serial == row.serial),
        ("fingerprint", certificate.fingerprint().to_string() == row.fingerprint),
        ("begin", facts.not_before.unix_timestamp() == row.not_before),
        ("end", facts.not_after.unix_timestamp() == row.not_after),
    ];
    all.into_iter().filter(|(_, same)| !same).map(|(what, _)| what).collect()
}

/// Tells whether a private key belongs to what is recorded of its public half: a DKIM record's `p=`, or the digest of the
/// SubjectPublicKeyInfo.
fn holds_public(key: &Secret, public: &str) -> bool {
    let is_digest = public.len() == 64 && public.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_digest {
        return PrivateKey::from_pem(key).is_ok_and(|private| Digest::of(private.spki_der()).to_string() == public);
    }
    private::public_half(key).is_some_and(|own| own == public)
}

/// Tells whether the octets are one DER SEQUENCE to the last of them, as a PKCS#12 file is (RFC 7292 §4).
#[expect(clippy::needless_pass_by_value, reason = "it is wiped here")]
fn is_whole(bundle: Secret) -> bool {
    let [0x30, length, rest @ ..] = bundle.expose() else { return false };
    if *length < 0x80 {
        return rest.len() == usize::from(*length);
    }
    let count = usize::from(length & 0x7f);
    let Some((length, rest)) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count)) else { return false };
    rest.len() == length.iter().fold(0, |sum, octet| (sum << 8) | usize::from(*octet))
}
