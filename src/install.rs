//! What must be done to a host so that it has what is rendered: each file's fate, the order, and what the daemons must then
//! be told. Pure: what the host has is an argument.
//!
//! A file that postseal did not write is never written over: its content is none that was ever installed there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};

use crate::names::{Digest, NameError, shown};
use crate::plan::holds_secret;
use crate::platform::{Layout, WebServer};
use crate::secret::Secret;
use crate::tree::{Class, Part};

/// Owner and group of a file, by number as the host has them.
pub type Owner = (u32, u32);

/// A file or directory that the host should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its absolute path on the host.
    pub path: Utf8PathBuf,
    /// Owner and group.
    pub owner: Owner,
    /// The permission bits.
    pub mode: u32,
    /// Who may see it.
    pub class: Class,
    /// Who reads it.
    pub part: Part,
    /// What it holds; none is a directory.
    pub content: Option<Secret>,
}

/// What the host has at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory(Owner, u32),
    /// A file.
    File(Owner, u32, Secret),
    /// Something that is there and may not be read.
    Unreadable,
    /// A symbolic link, a device, a socket: or one of them stands in the way.
    Other,
}

/// What the administrator decided about files that postseal did not write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// These are replaced, and what they held is kept in the site.
    pub adopt: BTreeSet<Utf8PathBuf>,
    /// These stay as they are, be they rendered or not.
    pub keep: BTreeSet<Utf8PathBuf>,
}

/// What becomes of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is not there yet.
    Create,
    /// It holds something older that postseal wrote.
    Change,
    /// Its content is right, its owner or mode is not.
    Repair,
    /// It holds what somebody else wrote, and the administrator said to replace it.
    Adopt,
    /// It is no longer rendered, and holds what postseal wrote.
    Remove,
    /// It holds what somebody else wrote, and the administrator said to leave it.
    Keep,
    /// It holds what somebody else wrote: nothing is done before the administrator decides.
    Foreign,
    /// It cannot be read, or is neither file nor directory where one is wanted.
    Blocked,
    /// It is no longer rendered, but somebody else changed it since, or needs it.
    Leave,
    /// It is as it should be.
    Same,
}

impl Action {
    /// Returns the word that reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Blocked => "blocked",
            Self::Change => "change",
            Self::Create => "create",
            Self::Foreign => "not ours",
            Self::Keep => "keep",
            Self::Leave => "leave",
            Self::Remove => "remove",
            Self::Repair => "repair",
            Self::Same => "same",
        }
    }

    /// Tells whether the host is changed by it.
    pub fn changes(self) -> bool {
        matches!(self, Self::Adopt | Self::Change | Self::Create | Self::Remove | Self::Repair)
    }

    /// Tells whether a new file takes the path's place.
    pub fn writes(self) -> bool {
        self.changes() && self != Self::Remove
    }

    /// Tells whether nothing may be done before somebody decides or mends.
    pub fn hinders(self) -> bool {
        matches!(self, Self::Blocked | Self::Foreign)
    }
}

/// One path with what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The absolute path on the host.
    pub path: Utf8PathBuf,
    /// What becomes of it.
    pub action: Action,
    /// What should be there; nothing for what is no longer rendered.
    pub wanted: Option<Wanted>,
    /// What is there.
    pub found: Found,
}

impl Step {
    /// Tells whether it is about a directory.
    pub fn is_directory(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.content.is_none())
    }

    /// Returns the unified diff from what is there to what should be, of a public file of which both sides are text. What is
    /// there may be somebody else's, and hold a password's hash: it is not shown then.
    pub fn unified(&self) -> Option<String> {
        let wanted = self.wanted.as_ref().filter(|wanted| wanted.class == Class::Public)?;
        let Found::File(_, _, old) = &self.found else { return None };
        let (old, new) = (old.expose_str()?, wanted.content.as_ref()?.expose_str()?);
        if old == new || holds_secret(old) {
            return None;
        }
        let text = similar::TextDiff::from_lines(old, new);
        let (from, to) = (format!("a{}", self.path), format!("b{}", self.path));
        Some(text.unified_diff().context_radius(3).header(&from, &to).to_string())
    }

    /// The place in the order: directories, then files by their part, removals last and from the leaves up.
    fn rank(&self) -> (u8, Option<Part>) {
        match (&self.wanted, self.action) {
            (_, Action::Remove) | (None, _) => (2, None),
            (Some(Wanted { content: None, .. }), _) => (0, None),
            (Some(wanted), _) => (1, Some(wanted.part)),
        }
    }
}

/// What must be told to a daemon after an installation. The order is that in which it is done: Rspamd signs before OpenSMTPD
/// sends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Rspamd must be restarted.
    RestartRspamd,
    /// OpenSMTPD must be restarted: it has no reload.
    RestartSmtpd,
    /// OpenSMTPD must read one table anew.
    UpdateTable(String),
    /// Dovecot, where it heeds CRLs, must read them anew.
    ReloadDovecot,
    /// The web server must read its configuration anew.
    ReloadWeb(WebServer),
}

/// What a word of the ledger before a table's name means.
const UPDATE: &str = "update ";

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestartRspamd => f.write_str("restart rspamd"),
            Self::RestartSmtpd => f.write_str("restart smtpd"),
            Self::UpdateTable(table) => write!(f, "{UPDATE}{table}"),
            Self::ReloadDovecot => f.write_str("reload dovecot"),
            Self::ReloadWeb(server) => write!(f, "reload {}", server.as_str()),
        }
    }
}

impl FromStr for Effect {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = [Self::RestartRspamd, Self::RestartSmtpd, Self::ReloadDovecot];
        let web = WebServer::ALL.map(Self::ReloadWeb);
        let known = plain.into_iter().chain(web).find(|effect| effect.to_string() == text);
        let table = || text.strip_prefix(UPDATE).map(|table| Self::UpdateTable(table.to_owned()));
        known.or_else(table).ok_or_else(|| NameError {
            problem: format!("`{}` is nothing that a daemon is told", shown(text)),
            mend: "use the postseal that wrote it".to_owned(),
        })
    }
}

impl Effect {
    /// Returns what a daemon must be told once a file of that part is in place.
    pub fn of(part: Part, path: &Utf8Path) -> Option<Self> {
        match part {
            // A key is read once something names it; Rspamd watches the map; a web server reads what it is asked for.
            Part::DkimKey | Part::DkimMap | Part::WebFile | Part::Zone => None,
            Part::Crls => Some(Self::ReloadDovecot),
            Part::Rspamd => Some(Self::RestartRspamd),
            Part::Certificate | Part::TrustList | Part::Smtpd => Some(Self::RestartSmtpd),
            Part::Table => path.file_name().map(|name| Self::UpdateTable(name.to_owned())),
            Part::WebConf(server) => Some(Self::ReloadWeb(server)),
        }
    }
}

/// Returns the shell commands that bring effects about, in order. OpenSMTPD reads its tables at a restart, too.
pub fn commands(effects: &BTreeSet<Effect>, layout: &Layout) -> Vec<String> {
    let restarts = effects.contains(&Effect::RestartSmtpd);
    let command = |effect: &Effect| match effect {
        Effect::RestartRspamd => Some(layout.restart_rspamd.to_owned()),
        Effect::RestartSmtpd => Some(layout.restart_smtpd.to_owned()),
        Effect::UpdateTable(table) => (!restarts).then(|| format!("smtpctl update table {table}")),
        Effect::ReloadDovecot => Some(layout.reload_dovecot.to_owned()),
        Effect::ReloadWeb(server) => layout.web.daemon(*server).map(|daemon| daemon.reload.to_owned()),
    };
    effects.iter().filter_map(command).collect()
}

/// All that is to be done to one host, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    /// Every path, in the order in which it is dealt with.
    pub steps: Vec<Step>,
}

impl Installation {
    /// Compares what is wanted with what is there. `installed` are path and digest of everything that was ever installed on
    /// this host; `found` has an entry for each path of both.
    pub fn new(
        wanted: Vec<Wanted>,
        mut found: BTreeMap<Utf8PathBuf, Found>,
        installed: &BTreeSet<(Utf8PathBuf, Digest)>,
        choices: &Choices,
    ) -> Self {
        let rendered: BTreeSet<Utf8PathBuf> = wanted.iter().map(|wanted| wanted.path.clone()).collect();
        let ours =
            |path: &Utf8Path, content: &Secret| installed.contains(&(path.to_owned(), Digest::of(content.expose())));
        let mut take = |path: &Utf8Path| found.remove(path).unwrap_or(Found::Nothing);
        let mut steps: Vec<Step> = Vec::new();
        for wanted in wanted {
            let path = wanted.path.clone();
            let found = take(&path);
            let action = fate(&wanted, &found, choices, |content| ours(&path, content));
            steps.push(Step { path, action, wanted: Some(wanted), found });
        }
        // A kept file may name what would be removed.
        let may_remove = steps.iter().all(|step| step.action != Action::Keep);
        let gone: BTreeSet<&Utf8PathBuf> = installed.iter().map(|(path, _)| path).collect();
        for path in gone.into_iter().filter(|path| !rendered.contains(*path)) {
            let found = take(path);
            let action = match &found {
                Found::Nothing => continue,
                Found::File(_, _, content) if may_remove && !choices.keep.contains(path) && ours(path, content) => {
                    Action::Remove
                }
                _ => Action::Leave,
            };
            steps.push(Step { path: path.clone(), action, wanted: None, found });
        }
        steps.sort_by(|a, b| a.rank().cmp(&b.rank()).then_with(|| a.path.cmp(&b.path)));
        Self { steps }
    }

    /// Tells whether the host is as it should be.
    pub fn is_done(&self) -> bool {
        self.steps.iter().all(|step| !step.action.changes() && !step.action.hinders())
    }

    /// Returns what hinders the work.
    pub fn hindrances(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.action.hinders())
    }

    /// Returns what changes the host, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.action.changes())
    }

    /// Returns what the daemons must be told afterwards.
    pub fn effects(&self) -> BTreeSet<Effect> {
        let mut effects = BTreeSet::new();
        for step in self.changes().filter(|step| !step.is_directory()) {
            let Some(wanted) = &step.wanted else { continue };
            effects.extend(Effect::of(wanted.part, &step.path));
        }
        effects
    }

    /// Returns the closing line: `2 to create, 1 to change, 25 as they should be`.
    pub fn summary(&self) -> String {
        let words = [
            (Action::Create, "to create"),
            (Action::Change, "to change"),
            (Action::Repair, "to repair"),
            (Action::Adopt, "to adopt"),
            (Action::Remove, "to remove"),
            (Action::Foreign, "not ours"),
            (Action::Blocked, "blocked"),
            (Action::Keep, "kept"),
            (Action::Leave, "left"),
        ];
        let count = |action| self.steps.iter().filter(|step| step.action == action).count();
        let mut parts: Vec<String> = words
            .iter()
            .map(|(action, word)| (count(*action), word))
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        parts.push(format!("{} as they should be", count(Action::Same)));
        parts.join(", ")
    }
}

/// Decides what becomes of something that is wanted.
fn fate(wanted: &Wanted, found: &Found, choices: &Choices, ours: impl Fn(&Secret) -> bool) -> Action {
    let repair = |owner: Owner, mode: u32| {
        if (owner, mode) == (wanted.owner, wanted.mode) { Action::Same } else { Action::Repair }
    };
    match (found, &wanted.content) {
        (Found::Nothing, _) => Action::Create,
        (Found::Directory(owner, mode), None) => repair(*owner, *mode),
        (Found::File(owner, mode, old), Some(new)) if old == new => repair(*owner, *mode),
        (Found::File(_, _, old), Some(_)) => match () {
            () if choices.keep.contains(&wanted.path) => Action::Keep,
            () if ours(old) => Action::Change,
            () if choices.adopt.contains(&wanted.path) => Action::Adopt,
            () => Action::Foreign,
        },
        _ => Action::Blocked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;

    const ROOT: Owner = (0, 0);

    fn wanted(path: &str, part: Part, content: Option<&str>) -> Wanted {
        let content = content.map(|text| Secret::from(text.to_owned()));
        Wanted { path: path.into(), owner: ROOT, mode: 0o644, class: Class::Public, part, content }
    }

    fn file(text: &str) -> Found {
        Found::File(ROOT, 0o644, text.to_owned().into())
    }

    fn was(path: &str, text: &str) -> (Utf8PathBuf, Digest) {
        (path.into(), Digest::of(text.as_bytes()))
    }

    fn decide(found: Found, installed: &[(Utf8PathBuf, Digest)], choices: &Choices) -> Action {
        let wanted = vec![wanted("/etc/smtpd.conf", Part::Smtpd, Some("new"))];
        let found = [("/etc/smtpd.conf".into(), found)].into();
        let installed = installed.iter().cloned().collect();
        Installation::new(wanted, found, &installed, choices).steps[0].action
    }

    fn chosen(adopt: &[&str], keep: &[&str]) -> Choices {
        let set = |paths: &[&str]| paths.iter().map(Utf8PathBuf::from).collect();
        Choices { adopt: set(adopt), keep: set(keep) }
    }

    #[test]
    fn what_postseal_wrote_is_changed_and_what_others_wrote_is_not() {
        let (none, ours) = (Choices::default(), [was("/etc/smtpd.conf", "old")]);
        assert_eq!(decide(Found::Nothing, &[], &none), Action::Create);
        assert_eq!(decide(file("new"), &[], &none), Action::Same);
        assert_eq!(decide(file("old"), &ours, &none), Action::Change);
        assert_eq!(decide(file("by hand"), &ours, &none), Action::Foreign);
        assert_eq!(decide(file("old"), &[was("/etc/other", "old")], &none), Action::Foreign);
        assert_eq!(decide(Found::Other, &ours, &none), Action::Blocked);
        assert_eq!(decide(Found::Directory(ROOT, 0o755), &ours, &none), Action::Blocked);
    }

    #[test]
    fn the_administrator_decides_about_what_others_wrote() {
        let (adopt, keep) = (chosen(&["/etc/smtpd.conf"], &[]), chosen(&[], &["/etc/smtpd.conf"]));
        assert_eq!(decide(file("by hand"), &[], &adopt), Action::Adopt);
        assert_eq!(decide(file("by hand"), &[], &keep), Action::Keep);
        assert_eq!(decide(Found::Other, &[], &adopt), Action::Blocked);
    }

    #[test]
    fn owner_and_mode_are_part_of_a_file() {
        let right = Found::File((0, 7), 0o644, "new".to_owned().into());
        assert_eq!(decide(right, &[], &Choices::default()), Action::Repair);
        let wide = Found::File(ROOT, 0o666, "new".to_owned().into());
        assert_eq!(decide(wide, &[], &Choices::default()), Action::Repair);
    }

    /// A path, what is there, and what was installed there once.
    fn order(wanted: Vec<Wanted>, found: &[(&str, &str)], choices: &Choices) -> Vec<(String, Action)> {
        let installed = found.iter().map(|(path, text)| was(path, text)).collect();
        let found = found.iter().map(|(path, text)| ((*path).into(), file(text))).collect();
        let installation = Installation::new(wanted, found, &installed, choices);
        installation.steps.iter().map(|step| (step.path.to_string(), step.action)).collect()
    }

    #[test]
    fn keys_come_before_what_names_them_and_removals_last() {
        let tree = vec![
            wanted("/a/smtpd.conf", Part::Smtpd, Some("")),
            wanted("/b/dkim_signing.conf", Part::Rspamd, Some("")),
            wanted("/c/clients.pem", Part::TrustList, Some("")),
            wanted("/d/senders", Part::Table, Some("")),
            wanted("/a/selectors.map", Part::DkimMap, Some("")),
            wanted("/e/new.key", Part::DkimKey, Some("")),
            wanted("/f", Part::Smtpd, None),
            wanted("/0/nginx.conf", Part::WebConf(WebServer::Nginx), Some("")),
            wanted("/w/mta-sts.txt", Part::WebFile, Some("")),
        ];
        let steps = order(tree, &[("/0/old.key", "x")], &Choices::default());
        let paths: Vec<&str> = steps.iter().map(|(path, _)| path.as_str()).collect();
        let (first, second) = (["/f", "/e/new.key", "/a/selectors.map"], ["/c/clients.pem", "/d/senders"]);
        let third = ["/b/dkim_signing.conf", "/a/smtpd.conf"];
        let last = ["/w/mta-sts.txt", "/0/nginx.conf", "/0/old.key"];
        assert_eq!(paths, [&first[..], &second[..], &third[..], &last[..]].concat());
        assert_eq!(steps[9].1, Action::Remove);
    }

    #[test]
    fn nothing_is_removed_while_a_kept_file_may_name_it() {
        let tree = vec![wanted("/etc/smtpd.conf", Part::Smtpd, Some("new"))];
        let found = [("/etc/smtpd.conf", "old"), ("/etc/old.key", "x")];
        let steps = order(tree, &found, &chosen(&[], &["/etc/smtpd.conf"]));
        assert_eq!(steps[1], ("/etc/old.key".to_owned(), Action::Leave));
    }

    #[test]
    fn what_is_no_longer_rendered_stays_if_the_administrator_says_so() {
        let found = [("/etc/old.key", "x"), ("/etc/older.key", "x")];
        let steps = order(Vec::new(), &found, &chosen(&[], &["/etc/old.key"]));
        assert_eq!(steps.iter().map(|(_, action)| *action).collect::<Vec<_>>(), [Action::Leave, Action::Remove]);
    }

    #[test]
    fn a_restart_reads_the_tables_too() {
        let told = |wanted: Vec<Wanted>| {
            let installation = Installation::new(wanted, BTreeMap::new(), &BTreeSet::new(), &Choices::default());
            commands(&installation.effects(), Platform::OpenBsd.layout())
        };
        let table = || wanted("/etc/mail/postseal/senders", Part::Table, Some(""));
        assert_eq!(told(vec![table()]), ["smtpctl update table senders"]);
        let conf = || wanted("/etc/mail/smtpd.conf", Part::Smtpd, Some(""));
        assert_eq!(told(vec![table(), conf()]), ["rcctl restart smtpd"]);
        let signing = || wanted("/etc/rspamd/local.d/dkim_signing.conf", Part::Rspamd, Some(""));
        assert_eq!(told(vec![signing(), table()]), ["rcctl restart rspamd", "smtpctl update table senders"]);
        assert_eq!(told(vec![conf(), signing()]), ["rcctl restart rspamd", "rcctl restart smtpd"]);
        let key = || wanted("/var/rspamd/dkim/x.key", Part::DkimKey, Some(""));
        let map = || wanted("/var/rspamd/dkim/selectors.map", Part::DkimMap, Some(""));
        assert!(told(vec![key(), map()]).is_empty(), "Rspamd watches the map, and reads a key that it names");
        let crls = || wanted("/etc/mail/postseal/clients-with-crl.pem", Part::Crls, Some(""));
        assert_eq!(told(vec![crls(), table()]), ["smtpctl update table senders", "rcctl reload dovecot"]);
        let web = |part| vec![wanted("/x", part, Some(""))];
        assert_eq!(told(web(Part::WebConf(WebServer::Httpd))), ["rcctl reload httpd"]);
        assert!(told(web(Part::WebFile)).is_empty(), "a web server reads a file when it is asked for it");
        assert!(told(vec![wanted("/d", Part::Smtpd, None)]).is_empty());
    }

    #[test]
    fn what_is_due_survives_the_ledger() {
        let plain = [Effect::RestartRspamd, Effect::RestartSmtpd, Effect::ReloadDovecot];
        let others = [Effect::UpdateTable("senders".into())].into_iter().chain(WebServer::ALL.map(Effect::ReloadWeb));
        for effect in plain.into_iter().chain(others) {
            assert_eq!(effect.to_string().parse::<Effect>().unwrap(), effect);
        }
        assert!("restart named".parse::<Effect>().is_err());
    }

    #[test]
    fn a_password_hash_of_somebody_else_is_not_shown() {
        let path = "/etc/rspamd/local.d/worker-controller.inc";
        let (wanted, found) = (Some(wanted(path, Part::Rspamd, Some("new\n"))), file("password = \"$2$abc\";\n"));
        assert_eq!(Step { path: path.into(), action: Action::Foreign, wanted, found }.unified(), None);
    }

    #[test]
    fn only_public_files_are_shown() {
        let mut secret = wanted("/etc/credentials", Part::Table, Some("new\n"));
        let step = |wanted: Wanted| Step {
            path: wanted.path.clone(),
            action: Action::Change,
            found: file("old\n"),
            wanted: Some(wanted),
        };
        assert!(step(secret.clone()).unified().unwrap().contains("-old\n+new\n"));
        for class in [Class::Private, Class::Secret] {
            secret.class = class;
            assert_eq!(step(secret.clone()).unified(), None);
        }
    }
}
