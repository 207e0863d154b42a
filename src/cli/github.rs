//! GitHub Actions: annotations, the job summary, and text that cannot be taken for a command of the runner.
//!
//! The runner looks for commands in every line of a step's output: `::name ...::` at its start, whatever blanks stand
//! before, and `##[name ...]` anywhere. It compares as people read, so that characters without a width do not count.

use std::fmt::Write as _;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};

use crate::cli::draw;
use crate::diag::{Diagnostic, Place, Severity};
use crate::env::Env;
use crate::names::visible;
use crate::plan::{Change, Difference, Kind};

/// A remark that GitHub shows beside a line of a file.
#[derive(Clone, Debug)]
pub(super) struct Annotation {
    severity: Severity,
    /// As the user would write it.
    file: Option<Utf8PathBuf>,
    line: Option<usize>,
    column: Option<usize>,
    title: String,
    message: String,
}

/// What a command tells GitHub beside its text.
#[derive(Clone, Debug, Default)]
pub(super) struct Remarks {
    /// Beside files.
    pub(super) annotations: Vec<Annotation>,
    /// For the job's page, in Markdown; may be empty.
    pub(super) summary: String,
}

/// Tells whether this runs on GitHub Actions, or on what takes its place.
pub(super) fn is_here(env: &dyn Env) -> bool {
    env.variable("GITHUB_ACTIONS").is_some_and(|value| value == "true")
}

impl Annotation {
    /// Makes the remark about a file that differs from what was blessed.
    pub(super) fn drift(file: Utf8PathBuf, line: usize, message: String) -> Self {
        let title = "golden drift".to_owned();
        Self { severity: Severity::Error, file: Some(file), line: Some(line), column: None, title, message }
    }

    /// Makes the remark that a diagnostic is.
    pub(super) fn of(diagnostic: &Diagnostic) -> Self {
        let place = diagnostic.place.as_ref();
        let (line, column) = place.map(Place::line_column).unzip();
        let help = if diagnostic.help.is_empty() { String::new() } else { format!("; {}", diagnostic.help) };
        Self {
            severity: diagnostic.severity,
            file: place.map(|place| place.source.path.clone()),
            line,
            column,
            title: diagnostic.code.to_owned(),
            message: format!("{}{help}", diagnostic.message),
        }
    }

    /// Writes it as the runner's command, one line.
    pub(super) fn command(&self, env: &dyn Env) -> String {
        let mut properties = Vec::new();
        if let Some(file) = &self.file {
            properties.push(format!("file={}", property(in_repository(env, file).as_str())));
        }
        properties.extend(self.line.map(|line| format!("line={line}")));
        properties.extend(self.column.map(|column| format!("col={column}")));
        properties.push(format!("title={}", property(&self.title)));
        let name = draw::severity(self.severity);
        format!("::{name} {}::{}\n", properties.join(","), data(&visible(&self.message)))
    }
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Returns the path below the repository: the runner takes no account of the directory that a step works in.
fn in_repository(env: &dyn Env, file: &Utf8Path) -> Utf8PathBuf {
    let below = || {
        let here = Utf8PathBuf::from(env.variable("PWD")?);
        // Compared name by name, so that `./` does not count. What is shown beside a line is found by its plain path alone.
        Some(plain(&here.join(file)).strip_prefix(env.variable("GITHUB_WORKSPACE")?).ok()?.to_owned())
    };
    below().unwrap_or_else(|| file.to_owned())
}

/// Takes `..` out of a path, with the name before it.
fn plain(path: &Utf8Path) -> Utf8PathBuf {
    path.components().fold(Utf8PathBuf::new(), |mut plain, part| {
        if part == Utf8Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
        plain
    })
}

/// Returns a text in which the runner finds no command: the character that would make it one is escaped.
pub(super) fn harmless(text: &str) -> String {
    text.split_inclusive('\n').map(harmless_line).collect()
}

fn harmless_line(line: &str) -> String {
    let begin = line.len() - line.trim_start().len();
    let mut before = ' ';
    let mut out = String::with_capacity(line.len());
    for (at, c) in line.char_indices() {
        let opens = at == begin && (c == ':' || !c.is_ascii());
        if opens || (c == '[' && before == '#') {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        if c.is_ascii() {
            before = c;
        }
    }
    out
}

/// Returns JSON that says the same and holds no command.
pub(super) fn harmless_json(text: &str) -> String {
    // Outside a string no `[` follows a `#`.
    let (mut before, mut out) = (' ', String::with_capacity(text.len()));
    for c in text.chars() {
        if c == '[' && before == '#' {
            out.push_str("\\u005b");
        } else {
            out.push(c);
        }
        if c.is_ascii() {
            before = c;
        }
    }
    out
}

/// How much of the job's page one difference takes, in octets; GitHub drops a page of more than 1 MiB.
const SUMMARY_LIMIT: usize = 256 * 1024;
/// How many reasons an annotation and a cell give.
const REASONS: usize = 10;

/// Returns the remarks about a difference; `golden` is its directory as the user would write it, `others` is what does not
/// show in a file of golden.
pub(super) fn remarks(difference: &Difference, golden: &Utf8Path, others: &[Annotation]) -> Remarks {
    let drift = |change: &Change| Annotation::drift(golden.join(&change.path), change.line, message(change));
    let annotations = difference.changes.iter().map(drift).chain(others.iter().cloned()).collect();
    Remarks { annotations, summary: summary(difference, others) }
}

fn message(change: &Change) -> String {
    let what = match change.kind {
        Kind::Added => "rendered, but not in golden/",
        Kind::Changed => "what is rendered differs from here on",
        Kind::Missing => "in golden/, but no longer rendered",
    };
    let why = why(&change.reasons);
    if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") }
}

fn why(reasons: &[String]) -> String {
    let shown: Vec<&str> = reasons.iter().take(REASONS).map(String::as_str).collect();
    let more = reasons.len().saturating_sub(REASONS);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    shown.join("; ") + &more
}

fn summary(difference: &Difference, others: &[Annotation]) -> String {
    let mut text = format!("### postseal diff\n\n{}\n", difference.summary());
    for other in others {
        text.push_str(&format!("\n{}\n", escaped(&other.message)));
    }
    if !difference.changes.is_empty() {
        text.push_str("\nIf it is meant: `postseal bless` where a person looks at it, and commit `golden/`.\n");
        text.push_str("\n| file in golden/ | line | what | why |\n|---|---|---|---|\n");
    }
    for (number, change) in difference.changes.iter().enumerate() {
        let (path, why) = (code(change.path.as_str()), escaped(&why(&change.reasons)));
        let row = format!("| {path} | {} | {} | {why} |\n", change.line, change.kind.as_str());
        if text.len() + row.len() > SUMMARY_LIMIT {
            text.push_str(&format!("\nand {} more files\n", difference.changes.len() - number));
            break;
        }
        text.push_str(&row);
    }
    text.push('\n');
    text
}

/// A code span, in which nothing but these two has a meaning inside a table.
fn code(text: &str) -> String {
    let text = visible(text).replace('`', "\\u{60}").replace('|', "\\u{7c}");
    format!("`{text}`")
}

/// Markdown that shows the text as it is.
fn escaped(text: &str) -> String {
    visible(text).chars().fold(String::new(), |mut out, c| {
        if c.is_ascii_punctuation() && !matches!(c, '.' | '-' | ',' | ';' | ':' | '(' | ')' | '/') {
            // Writing to a String cannot fail.
            let _ = write!(out, "&#{};", u32::from(c));
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::env::{Finished, Program, System};
    use crate::keys::{KeyError, KeyKind, PrivateKey};
    use crate::secret::Secret;

    /// The real surroundings, but for the variables.
    struct Variables(BTreeMap<&'static str, &'static str>);

    impl Env for Variables {
        fn now(&self) -> time::OffsetDateTime {
            System.now()
        }
        fn random(&self, count: usize) -> std::io::Result<Secret> {
            System.random(count)
        }
        fn generate_key(&self, kind: KeyKind) -> Result<PrivateKey, KeyError> {
            System.generate_key(kind)
        }
        fn variable(&self, name: &str) -> Option<String> {
            self.0.get(name).map(|value| (*value).to_owned())
        }
        fn output_is_terminal(&self) -> bool {
            false
        }
        fn person_is_there(&self) -> bool {
            false
        }
        fn ask_secret(&self, prompt: &str) -> std::io::Result<Secret> {
            System.ask_secret(prompt)
        }
        fn print(&self, text: &str) -> std::io::Result<()> {
            System.print(text)
        }
        fn talk(&self, text: &str) -> std::io::Result<()> {
            System.talk(text)
        }
        fn wait(&self, length: std::time::Duration) {
            System.wait(length);
        }
        fn ask_name_servers(
            &self,
            _resolver: Option<std::net::SocketAddr>,
            _questions: &[crate::dkim::seeing::Question],
            _done: &(dyn Fn(usize) + Sync),
        ) -> Vec<crate::dkim::seeing::Answer> {
            Vec::new()
        }
        fn run(&self, program: &Program<'_>) -> std::io::Result<Finished> {
            System.run(program)
        }
    }

    fn change(path: &str, reasons: &[&str]) -> Change {
        Change {
            path: path.into(),
            kind: Kind::Changed,
            unified: String::new(),
            line: 7,
            reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        }
    }

    fn difference(changes: Vec<Change>) -> Difference {
        Difference { changes, identical: 3 }
    }

    /// What the runner takes for a command, as actions/runner reads lines: blanks of any kind before `::` do not count, and
    /// neither do characters that have no width for those who compare by culture.
    fn has_command(output: &str) -> bool {
        let seen = |line: &str| -> String { line.trim_start().chars().filter(char::is_ascii).collect() };
        output.lines().any(|line| seen(line).trim_start().starts_with("::") || seen(line).contains("##["))
    }

    proptest! {
        #[test]
        fn no_text_holds_a_command_once_it_is_harmless(
            parts in prop::collection::vec(prop::sample::select(vec![
                "::", ":", "#", "##[", "[", "error", "]", " ", "\t", "\n", "\u{a0}", "\u{3000}", "\u{fe00}", "\u{34f}", "+", "ä",
            ]), 0..12),
        ) {
            let text = parts.concat();
            let safe = harmless(&text);
            prop_assert!(!has_command(&safe), "{:?} {:?}", text, safe);
            let json = serde_json::json!({ "diff": text });
            let safe = harmless_json(&json.to_string());
            prop_assert!(!has_command(&safe), "{}", safe);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), json);
        }
    }

    #[test]
    fn an_ordinary_diff_stays_as_it_is() {
        let diff = "--- a/golden/x\n+++ b/rendered/x\n@@ -1,2 +1,2 @@\n # ä [x]\n-a ::error::\n+\tselectors [\n";
        assert_eq!(harmless(diff), diff);
    }

    #[test]
    fn a_command_keeps_hostile_names_and_messages_inside() {
        let env = Variables(BTreeMap::new());
        let file = "golden/a,line=1::b%\r\n::error::c";
        let command = Annotation::drift(file.into(), 7, "x\n::error::50 %".to_owned()).command(&env);
        let expected = "::error file=golden/a%2Cline=1%3A%3Ab%25%0D%0A%3A%3Aerror%3A%3Ac,line=7,title=golden drift::\
                        x\\n::error::50 %25\n";
        assert_eq!(command, expected);
    }

    #[test]
    fn a_file_is_named_from_the_top_of_the_repository() {
        let site = [("PWD", "/w/repo/mail"), ("GITHUB_WORKSPACE", "/w/repo")];
        for (variables, file, expected) in [
            (site.as_slice(), "golden/a", "mail/golden/a"),
            (&site, "./golden/a", "mail/golden/a"),
            (&site, "../site/golden/a", "site/golden/a"),
            (&site, "/w/repo/other/golden/a", "other/golden/a"),
            (&site, "/elsewhere/golden/a", "/elsewhere/golden/a"),
            (&[], "site/golden/a", "site/golden/a"),
        ] {
            let env = Variables(variables.iter().copied().collect());
            assert_eq!(in_repository(&env, file.into()), expected);
        }
    }

    #[test]
    fn the_summary_is_a_table_that_no_name_or_reason_can_leave() {
        let path = "dns/`|<b>\n# x|";
        let remarks = remarks(&difference(vec![change(path, &["a | *b* <i> → @c"])]), "golden".into(), &[]);
        let expected = "### postseal diff\n\n1 changed, 0 added, 0 missing, 3 identical\n\n\
            If it is meant: `postseal bless` where a person looks at it, and commit `golden/`.\n\n\
            | file in golden/ | line | what | why |\n|---|---|---|---|\n\
            | `dns/\\u{60}\\u{7c}<b>\\n# x\\u{7c}` | 7 | changed | a &#124; &#42;b&#42; &#60;i&#62; → &#64;c |\n\n";
        assert_eq!(remarks.summary, expected);
    }

    #[test]
    fn a_long_summary_ends_with_how_many_files_it_leaves_out() {
        let many = (0..9000).map(|number| change(&format!("dns/{number}.zone"), &["same reason"])).collect();
        let summary = remarks(&difference(many), "golden".into(), &[]).summary;
        assert!(summary.len() <= SUMMARY_LIMIT + 100, "{}", summary.len());
        let shown = summary.lines().filter(|line| line.starts_with("| `")).count();
        assert!(summary.ends_with(&format!("\nand {} more files\n\n", 9000 - shown)));
    }

    #[test]
    fn of_many_reasons_the_first_are_told_and_the_others_counted() {
        let reasons: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        assert_eq!(why(&reasons), "0; 1; 2; 3; 4; 5; 6; 7; 8; 9; and 2 more");
        assert_eq!(why(&reasons[..1]), "0");
    }
}
