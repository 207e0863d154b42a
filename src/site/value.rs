//! The settings of one file, read one by one: each with its place, and with every problem collected.
//!
//! serde stops at the first problem of a table and words it for programmers, so the parsed TOML is walked here instead.
//! This module knows TOML and the shape of a setting; `file` knows which settings there are.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::MOST;
use super::codes::SETTINGS;
use crate::diag::{Diagnostic, Place, Source, did_you_mean};
use crate::names::{NameError, shown};

/// Reads one file and collects what is wrong in it.
pub(super) struct Reader<'f> {
    /// The file.
    pub(super) source: Arc<Source>,
    /// Whether the whole file is one domain.
    pub(super) is_domain_file: bool,
    /// What was found so far.
    pub(super) findings: &'f mut Vec<Diagnostic>,
}

/// A table whose settings have known names.
pub(super) struct Table<'t> {
    /// The key into [`SETTINGS`].
    name: &'static str,
    span: Range<usize>,
    entries: &'t DeTable<'t>,
}

/// One setting, or one element of its list.
#[derive(Clone)]
pub(super) struct Setting<'t> {
    /// Its name, without the table's.
    name: &'t str,
    /// Where its value stands.
    pub(super) span: Range<usize>,
    value: &'t DeValue<'t>,
}

impl<'t> Table<'t> {
    /// Returns a setting, if it is written.
    pub(super) fn get(&self, key: &'t str) -> Option<Setting<'t>> {
        debug_assert!(settings_of(self.name).contains(&key), "{key} is missing in SETTINGS");
        self.entries.get(key).map(|value| setting(key, value))
    }
}

impl Setting<'_> {
    /// Returns the setting's name.
    pub(super) fn name(&self) -> &str {
        self.name
    }

    /// Tells whether the value is a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Returns the value if it is a text, without a word if it is not.
    pub(super) fn as_text(&self) -> Option<&str> {
        self.value.as_str()
    }
}

fn setting<'t>(name: &'t str, value: &'t Spanned<DeValue<'t>>) -> Setting<'t> {
    Setting { name, span: value.span(), value: value.get_ref() }
}

/// Returns the names of the settings that a table takes.
fn settings_of(table: &str) -> &'static [&'static str] {
    SETTINGS.iter().find(|(name, _)| *name == table).map_or(&[], |(_, settings)| settings)
}

/// Tells whether the setting is given by the name of the file.
fn is_in_file_name(table: &str, setting: &str, is_domain_file: bool) -> bool {
    is_domain_file && table == "domain" && setting == "name"
}

impl Reader<'_> {
    /// Returns the place of a span of this file.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        Place { source: Arc::clone(&self.source), span }
    }

    /// Adds an error.
    pub(super) fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        (span, label): (Range<usize>, &str),
        help: impl Into<String>,
    ) {
        let place = self.place(span);
        self.report(Diagnostic::error(code, message, help).at(place, label));
    }

    /// Adds a finding, unless there are enough.
    pub(super) fn report(&mut self, finding: Diagnostic) {
        if self.findings.len() < MOST {
            self.findings.push(finding);
        }
    }

    /// Opens a table by its name in [`SETTINGS`] and reports the settings that it does not take.
    pub(super) fn open<'t>(&mut self, name: &'static str, span: Range<usize>, entries: &'t DeTable<'t>) -> Table<'t> {
        for key in entries.keys() {
            let word = key.get_ref().as_ref();
            if !settings_of(name).contains(&word) || is_in_file_name(name, word, self.is_domain_file) {
                self.unknown(name, key);
            }
        }
        Table { name, span, entries }
    }

    /// Opens the table that a setting holds.
    pub(super) fn table<'t>(&mut self, setting: &Setting<'t>, name: &'static str) -> Option<Table<'t>> {
        if let DeValue::Table(entries) = setting.value {
            return Some(self.open(name, setting.span.clone(), entries));
        }
        let help = format!("write a table: {}", self.title(name));
        self.wrong_type(setting, "a table", help)
    }

    /// Returns the key, its span and its setting for each entry of a table whose keys are the user's.
    pub(super) fn entries<'t>(&mut self, setting: &Setting<'t>) -> Vec<(Range<usize>, Setting<'t>)> {
        if let DeValue::Table(entries) = setting.value {
            return entries.iter().map(|(key, value)| (key.span(), self::setting(key.get_ref(), value))).collect();
        }
        self.wrong_type::<()>(setting, "a table", format!("write a table: [{}]", setting.name));
        Vec::new()
    }

    /// Returns the tables of a setting that may be written several times, as `[[host]]` is.
    pub(super) fn tables<'t>(&mut self, setting: &Setting<'t>, name: &'static str) -> Vec<Table<'t>> {
        let help = format!("write {} with two brackets on each side, once for each", self.title(name));
        let DeValue::Array(elements) = setting.value else {
            self.wrong_type::<()>(setting, &format!("one or more {} tables", self.title(name)), help);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in elements {
            match element.get_ref() {
                DeValue::Table(entries) => tables.push(self.open(name, element.span(), entries)),
                _ => _ = self.wrong_type::<()>(&self::setting(setting.name, element), "a table", help.clone()),
            }
        }
        tables
    }

    /// Returns a text.
    pub(super) fn text<'t>(&mut self, setting: &Setting<'t>) -> Option<&'t str> {
        if let DeValue::String(text) = setting.value {
            return Some(text.as_ref());
        }
        let raw = self.source.text.get(setting.span.clone()).unwrap_or_default().to_owned();
        let help = match setting.value {
            DeValue::Array(_) | DeValue::Table(_) => {
                format!("write one value in quotes: {} = \"...\"", shown(setting.name))
            }
            _ => format!("write it in quotes: \"{}\"", shown(&raw)),
        };
        self.wrong_type(setting, "a text in quotes", help)
    }

    /// Returns a whole number within bounds.
    pub(super) fn number(&mut self, setting: &Setting<'_>, bounds: RangeInclusive<u16>, of: &str) -> Option<u16> {
        let (least, most) = (bounds.start(), bounds.end());
        let takes = format!("write a number of {of} from {least} to {most}, without quotes");
        let DeValue::Integer(written) = setting.value else { return self.wrong_type(setting, "a number", takes) };
        let number =
            u16::from_str_radix(written.as_str(), written.radix()).ok().filter(|number| bounds.contains(number));
        let refuse = || NameError {
            problem: format!("`{}` is no number of {of} here", shown(written.as_str())),
            mend: takes.clone(),
        };
        self.checked(number.ok_or_else(refuse), setting.span.clone())
    }

    /// Returns true or false.
    pub(super) fn truth(&mut self, setting: &Setting<'_>) -> Option<bool> {
        if let DeValue::Boolean(truth) = setting.value {
            return Some(*truth);
        }
        self.wrong_type(setting, "true or false", "write true or false, without quotes".to_owned())
    }

    /// Returns the elements of a list.
    pub(super) fn list<'t>(&mut self, setting: &Setting<'t>) -> Option<Vec<Setting<'t>>> {
        if let DeValue::Array(elements) = setting.value {
            return Some(elements.iter().map(|element| self::setting(setting.name, element)).collect());
        }
        let raw = self.source.text.get(setting.span.clone()).unwrap_or_default().to_owned();
        self.wrong_type(setting, "a list", format!("write it in brackets: [{}]", shown(&raw)))
    }

    /// Returns a list of one or more that holds nothing twice; `parse` reads an element.
    pub(super) fn distinct<'t, T: Clone + Display + Ord>(
        &mut self,
        setting: &Setting<'t>,
        mut parse: impl FnMut(&mut Self, &Setting<'t>) -> Option<T>,
    ) -> Option<Vec<(T, Place)>> {
        let mut seen = BTreeSet::new();
        let mut values = Vec::new();
        for element in self.list(setting)? {
            let Some(value) = parse(self, &element) else { continue };
            if seen.insert(value.clone()) {
                values.push((value, self.place(element.span)));
            } else {
                let message = format!("`{value}` stands twice in `{}`", shown(setting.name));
                self.error("duplicate-entry", message, (element.span, "the second one"), "remove one of the two");
            }
        }
        Some(values)
    }

    /// Reads a text by the rules of a name's type.
    pub(super) fn parse<T: FromStr<Err = NameError>>(&mut self, setting: &Setting<'_>) -> Option<T> {
        let text = self.text(setting)?;
        self.checked(text.parse(), setting.span.clone())
    }

    /// Returns the value, or reports why there is none.
    pub(super) fn checked<T>(&mut self, result: Result<T, NameError>, span: Range<usize>) -> Option<T> {
        result.map_err(|error| self.error("bad-value", error.problem, (span, "not usable"), error.mend)).ok()
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(&mut self, setting: &Setting<'_>, choices: &[(&'static str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let takes = format!("`{}` takes: {}", shown(setting.name), words.join(", "));
        let DeValue::String(text) = setting.value else { return self.wrong_type(setting, "a word in quotes", takes) };
        let found = choices.iter().find(|(word, _)| *word == text.as_ref()).map(|(_, value)| *value);
        if found.is_none() {
            let hint = did_you_mean(text, words).map_or_else(String::new, |guess| format!("did you mean `{guess}`? "));
            let message = format!("`{}` is no value of `{}`", shown(text), shown(setting.name));
            self.error("bad-choice", message, (setting.span.clone(), "not one of the choices"), hint + &takes);
        }
        found
    }

    /// Reads one of a few words, or takes the default.
    pub(super) fn choice_or<T: Copy>(
        &mut self,
        table: &Table<'_>,
        key: &'static str,
        choices: &[(&'static str, T)],
        default: T,
    ) -> T {
        table.get(key).and_then(|setting| self.choice(&setting, choices)).unwrap_or(default)
    }

    /// Reports a list that holds nothing.
    pub(super) fn not_empty(&mut self, setting: &Setting<'_>, help: &str) {
        if setting.value.as_array().is_some_and(|elements| elements.is_empty()) {
            let message = format!("`{}` is empty", shown(setting.name));
            self.error("empty-list", message, (setting.span.clone(), "nothing in it"), help);
        }
    }

    /// Reads one of the variants that [`SETTINGS`] lists under `name`: a word, or a table with one key that holds the
    /// variant's own settings.
    pub(super) fn variant<'t>(
        &mut self,
        setting: &Setting<'t>,
        name: &'static str,
    ) -> Option<(&'static str, Option<Setting<'t>>)> {
        let variants = settings_of(name);
        let DeValue::Table(entries) = setting.value else {
            let words: Vec<_> = variants.iter().map(|word| (*word, *word)).collect();
            return self.choice(setting, &words).map(|word| (word, None));
        };
        let mut found = None;
        for (key, value) in entries {
            let Some(word) = variants.iter().find(|word| **word == key.get_ref().as_ref()) else {
                self.unknown(name, key);
                continue;
            };
            if let Some((first, _)) = found {
                let message = format!("`{}` is both `{first}` and `{word}`", setting.name);
                self.error("two-choices", message, (key.span(), "the second choice"), "keep one of the two");
                return None;
            }
            found = Some((*word, Some(self::setting(word, value))));
        }
        if entries.is_empty() {
            let message = format!("`{}` says nothing", setting.name);
            let help = format!("name one of: {}", variants.join(", "));
            self.error("missing-key", message, (setting.span.clone(), "empty"), help);
        }
        found
    }

    /// Reads a variant's table that takes no settings.
    pub(super) fn nothing(&mut self, body: Option<Setting<'_>>, name: &'static str) {
        if let Some(body) = body {
            self.table(&body, name);
        }
    }

    /// Returns a setting that must be written.
    pub(super) fn required<'t>(&mut self, table: &Table<'t>, key: &'static str, example: &str) -> Option<Setting<'t>> {
        let found = table.get(key);
        if found.is_none() {
            let message = format!("{} has no `{key}`", self.title(table.name));
            let help = format!("add a line such as: {key} = {example}");
            self.error("missing-key", message, (table.span.clone(), &format!("`{key}` is missing")), help);
        }
        found
    }

    /// Reports a variant that was written as a word but needs settings of its own.
    pub(super) fn needs_table(&mut self, setting: &Setting<'_>, word: &str, table: &'static str) {
        let message = format!("`{word}` needs settings of its own");
        let help = format!("write a table {} with: {}", self.title(table), settings_of(table).join(", "));
        self.error("missing-key", message, (setting.span.clone(), "nothing but the word"), help);
    }

    fn unknown(&mut self, table: &str, key: &Spanned<Cow<'_, str>>) {
        let word = key.get_ref().as_ref();
        let title = self.title(table);
        let domain_file = self.is_domain_file;
        let settings: Vec<&str> =
            settings_of(table).iter().copied().filter(|name| !is_in_file_name(table, name, domain_file)).collect();
        let hint = if is_in_file_name(table, word, domain_file) {
            "remove this line: the name of the file is the domain's name. ".to_owned()
        } else if let Some(guess) = did_you_mean(word, settings.iter().copied()) {
            format!("did you mean `{guess}`? ")
        } else {
            self.owners_of(word)
        };
        let takes = if settings.is_empty() { "nothing".to_owned() } else { settings.join(", ") };
        let help = format!("{hint}{title} takes: {takes}");
        let label = format!("not a setting of {title}");
        self.error("unknown-key", format!("{title} has no setting `{}`", shown(word)), (key.span(), &label), help);
    }

    /// Says in which other tables a setting of this name may stand: in TOML a line belongs to the table above it.
    fn owners_of(&self, word: &str) -> String {
        let owners = SETTINGS.iter().filter(|(_, settings)| settings.contains(&word)).map(|(name, _)| *name);
        let titles: Vec<String> = owners.map(|name| self.title(name)).collect();
        if settings_of("").contains(&word) {
            return "it is a setting of postseal.toml itself: write it there, above the first [table]. ".to_owned();
        }
        if titles.is_empty() { String::new() } else { format!("it is a setting of {}. ", titles.join(", ")) }
    }

    fn wrong_type<T>(&mut self, setting: &Setting<'_>, wanted: &str, help: String) -> Option<T> {
        let message = format!("`{}` wants {wanted}, not {}", shown(setting.name), kind(setting.value));
        self.error("wrong-type", message, (setting.span.clone(), kind(setting.value)), help);
        None
    }

    /// Returns a table's name as the user writes it in this file.
    fn title(&self, name: &str) -> String {
        match name {
            "" => "postseal.toml".to_owned(),
            "domain" if self.is_domain_file => shown(self.source.path.as_str()),
            "domain" | "host" => format!("[[{name}]]"),
            _ if self.is_domain_file => format!("[{}]", name.strip_prefix("domain.").unwrap_or(name)),
            _ => format!("[{name}]"),
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) => "a list",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Float(_) | DeValue::Integer(_) => "a number",
        DeValue::String(_) => "a text",
        DeValue::Table(_) => "a table",
    }
}
