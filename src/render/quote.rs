//! The only way a value reaches a template: one quoting filter for each syntax that templates write.
//!
//! A filter returns text that stands for exactly its value, or refuses. Nothing else guards a `.conf` file: Tera escapes
//! HTML only. Zone files are written by `dns::zone`, which quotes for itself.

use std::fmt::Write as _;

use tera::{ErrorKind, Kwargs, State, Tera, Value};

use crate::names::is_hidden;

/// Why a value cannot stand in a file of some syntax.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot stand in {syntax}: {reason}", shown(.value))]
pub struct QuoteError {
    /// The value.
    pub value: String,
    /// The syntax.
    pub syntax: &'static str,
    /// What the syntax cannot say.
    pub reason: &'static str,
}

fn shown(value: &str) -> String {
    format!("`{}`", crate::names::shown(value))
}

/// A syntax that templates write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// Caddy's configuration.
    Caddy,
    /// The configuration of OpenBSD's httpd.
    Httpd,
    /// A map file of Rspamd's.
    Map,
    /// nginx's configuration.
    Nginx,
    /// OpenSMTPD's configuration.
    Smtpd,
    /// A table file of OpenSMTPD's.
    Table,
    /// The body of a mail.
    Text,
    /// Rspamd's configuration.
    Ucl,
    /// XML.
    Xml,
}

impl Syntax {
    /// Every syntax.
    pub const ALL: [Self; 9] =
        [Self::Caddy, Self::Httpd, Self::Map, Self::Nginx, Self::Smtpd, Self::Table, Self::Text, Self::Ucl, Self::Xml];

    /// Returns the syntax of the file that a template writes.
    pub fn of_template(name: &str) -> Self {
        let extension = std::path::Path::new(name).extension();
        let is_conf = extension.is_some();
        match name.split('/').next() {
            Some("mail") => Self::Text,
            Some("rspamd") if extension.is_some_and(|extension| extension == "map") => Self::Map,
            Some("rspamd") => Self::Ucl,
            Some("smtpd") if !is_conf => Self::Table,
            Some("web") if extension.is_some_and(|extension| extension == "caddy") => Self::Caddy,
            Some("web") if extension.is_some_and(|extension| extension == "xml") => Self::Xml,
            Some("web") if name.starts_with("web/httpd") => Self::Httpd,
            Some("web") => Self::Nginx,
            _ => Self::Smtpd,
        }
    }

    /// Returns the name of its filter.
    pub fn filter(self) -> &'static str {
        match self {
            Self::Caddy => "caddy",
            Self::Httpd => "httpd",
            Self::Map => "map",
            Self::Nginx => "nginx",
            Self::Smtpd => "smtpd",
            Self::Table => "table",
            Self::Text => "text",
            Self::Ucl => "ucl",
            Self::Xml => "xml",
        }
    }

    /// Quotes a value.
    pub fn quote(self, value: &str) -> Result<String, QuoteError> {
        match self {
            Self::Caddy => caddy(value),
            Self::Httpd => httpd(value),
            Self::Map => map(value),
            Self::Nginx => nginx(value),
            Self::Smtpd => smtpd(value),
            Self::Table => table(value),
            Self::Text => text(value),
            Self::Ucl => ucl(value),
            Self::Xml => xml(value),
        }
    }
}

/// Registers the filters, and an escape function that refuses whatever did not pass one.
pub(super) fn register(tera: &mut Tera) {
    for syntax in Syntax::ALL {
        let filter = move |value: Value, _: Kwargs, _: &State| {
            // Of this kind of error alone, Tera tells the value's place and not the filter's.
            let no_text = || {
                let (expected_type, actual_type) = ("text".to_owned(), value.name().to_owned());
                tera::Error::new(ErrorKind::InvalidArgument { expected_type, actual_type })
            };
            let text = value.as_str().ok_or_else(no_text)?;
            let quoted = syntax.quote(text).map_err(tera::Error::message)?;
            Ok(Value::safe_string(&quoted))
        };
        tera.register_filter(syntax.filter(), filter);
    }
    // Every name ends in the empty suffix, so every template is guarded.
    tera.autoescape_on([""]);
    tera.set_escape_fn(|_, _| Err(std::io::Error::from(std::io::ErrorKind::InvalidData)));
}

/// Admits a key or a value of a map file, `key value` on a line.
///
/// Rspamd ends a key at a blank, cuts a line at `#`, takes quotes off a key but leaves them with a value, and reads a line
/// that begins with `/` or `[` in other ways: so a field is what a domain or a selector can be, and nothing else.
pub fn map(value: &str) -> Result<String, QuoteError> {
    const SYNTAX: &str = "a map file of Rspamd's";
    if value.is_empty() {
        return Err(refuse(value, SYNTAX, "it is empty"));
    }
    if value.chars().any(|c| !c.is_ascii_alphanumeric() && !"._-".contains(c)) {
        return Err(refuse(value, SYNTAX, "a map has no quotes, so it takes letters, digits and . _ - only"));
    }
    Ok(value.to_owned())
}

/// Quotes a string or a key of Rspamd's configuration.
///
/// Rspamd runs Jinja over the whole text, then UCL expands `$VAR`, then a string is unescaped as in JSON; so whatever could
/// mean anything to one of the three is written as `\u00XX`, which only the last one reads.
pub fn ucl(value: &str) -> Result<String, QuoteError> {
    printable(value, "Rspamd's configuration")?;
    let mut quoted = String::from("\"");
    for c in value.chars() {
        if c.is_ascii_alphanumeric() || "_.-/@:+,= ".contains(c) {
            quoted.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(quoted, "\\u{:04x}", u32::from(c));
        }
    }
    quoted.push('"');
    Ok(quoted)
}

/// Quotes a string of `smtpd.conf`.
///
/// Its lexer (`yylex` in parse.y) drops a newline within quotes, and takes the backslash before a quote, a blank or a tab
/// away while it keeps every other; a backslash at the end cannot be written. So none is admitted. `$` and `#` mean nothing
/// within quotes.
pub fn smtpd(value: &str) -> Result<String, QuoteError> {
    const SYNTAX: &str = "smtpd.conf";
    printable(value, SYNTAX)?;
    if value.contains('\\') {
        return Err(refuse(value, SYNTAX, "a backslash would be read as the start of something else"));
    }
    if value.len() > 1024 {
        return Err(refuse(value, SYNTAX, "it is longer than 1024 characters"));
    }
    Ok(format!("\"{}\"", value.replace('"', "\\\"")))
}

/// Admits a field of a table file, which has no quotes: key or value of a line, or one address of a list.
///
/// A field is a domain, a user or an address. Blanks and `:` end a key, `,` an address; `#` and `[` begin other lines, and
/// as a target `/`, `|`, `:` and `"` are a file, a program, an inclusion and a file again, `@` a whole domain.
pub fn table(value: &str) -> Result<String, QuoteError> {
    const SYNTAX: &str = "a table of OpenSMTPD's";
    if let Some(first) = value.chars().next() {
        if !first.is_ascii_alphanumeric() && !"_+='".contains(first) {
            return Err(refuse(value, SYNTAX, "its first character would mean something else"));
        }
    } else {
        return Err(refuse(value, SYNTAX, "it is empty"));
    }
    if value.chars().any(|c| !c.is_ascii_alphanumeric() && !"._+-=/'@".contains(c)) {
        return Err(refuse(
            value,
            SYNTAX,
            "a table has no quotes, so it takes letters, digits and . _ + - = / ' @ only",
        ));
    }
    if value.len() > 254 {
        return Err(refuse(value, SYNTAX, "it is longer than an address may be"));
    }
    Ok(value.to_owned())
}

/// Quotes a word of nginx's configuration.
///
/// Its lexer (`ngx_conf_read_token`) takes the backslash before a quote or a backslash away, makes control characters of `\\t`,
/// `\\r` and `\\n`, and keeps every other. A word that begins with `~` is still a pattern for some directives, and `$` begins a
/// variable that no quoting takes away: it is refused.
pub fn nginx(value: &str) -> Result<String, QuoteError> {
    const SYNTAX: &str = "nginx's configuration";
    printable(value, SYNTAX)?;
    if value.contains('$') {
        return Err(refuse(value, SYNTAX, "a dollar sign would begin a variable"));
    }
    if value.len() > 2048 {
        return Err(refuse(value, SYNTAX, "it is longer than 2048 characters"));
    }
    Ok(format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// Quotes a token of a Caddyfile.
///
/// Within quotes only `\\"` is an escape. Braces begin what Caddy replaces, before its lexer and after it, whatever quotes are
/// around: they are refused, and so is a backslash, which stands for itself or not by what follows.
pub fn caddy(value: &str) -> Result<String, QuoteError> {
    const SYNTAX: &str = "a Caddyfile";
    printable(value, SYNTAX)?;
    if value.contains(['{', '}', '\\']) {
        return Err(refuse(value, SYNTAX, "braces and backslashes would be read as something else"));
    }
    Ok(format!("\"{}\"", value.replace('"', "\\\"")))
}

/// Quotes a string of `httpd.conf`.
///
/// Its lexer is OpenSMTPD's. Names and paths are shell patterns besides, and `$` and `%` are replaced in some: so a string is
/// what a name or a plain path can be, and nothing else.
pub fn httpd(value: &str) -> Result<String, QuoteError> {
    const SYNTAX: &str = "httpd.conf";
    if value.is_empty() {
        return Err(refuse(value, SYNTAX, "it is empty"));
    }
    if value.chars().any(|c| !c.is_ascii_alphanumeric() && !"/._+-".contains(c)) {
        return Err(refuse(
            value,
            SYNTAX,
            "patterns are no text there, so it takes letters, digits and / . _ + - only",
        ));
    }
    if value.len() > 1024 {
        return Err(refuse(value, SYNTAX, "it is longer than 1024 characters"));
    }
    Ok(format!("\"{value}\""))
}

/// Writes text between tags, or within an attribute's quotes, in XML (XML 1.0 §2.2, §2.4).
pub fn xml(value: &str) -> Result<String, QuoteError> {
    let is_none_of_xml = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    if value.chars().any(|c| is_none_of_xml(c) || is_hidden(c)) {
        return Err(refuse(value, "XML", "it holds what is not seen, or a line end"));
    }
    let mut quoted = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '&' => quoted.push_str("&amp;"),
            '<' => quoted.push_str("&lt;"),
            '>' => quoted.push_str("&gt;"),
            '"' => quoted.push_str("&quot;"),
            '\'' => quoted.push_str("&apos;"),
            _ => quoted.push(c),
        }
    }
    Ok(quoted)
}

/// Admits a value of a mail's body: one line of visible text.
pub fn text(value: &str) -> Result<String, QuoteError> {
    if value.chars().any(|c| c.is_control() || is_hidden(c)) {
        return Err(refuse(value, "the text of a mail", "it holds what is not seen, or a line end"));
    }
    Ok(value.to_owned())
}

fn printable(value: &str, syntax: &'static str) -> Result<(), QuoteError> {
    let plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if plain { Ok(()) } else { Err(refuse(value, syntax, "only printable ASCII characters are read back everywhere")) }
}

fn refuse(value: &str, syntax: &'static str, reason: &'static str) -> QuoteError {
    QuoteError { value: value.to_owned(), syntax, reason }
}

/// Returns where a template writes something that its syntax's filter did not quote last: `{{ path.to.value | filter }}` is
/// the only form. The place is the expression's, in bytes.
pub fn first_unquoted(syntax: Syntax, template: &str) -> Option<std::ops::Range<usize>> {
    let mut from = 0;
    while let Some((start, opened)) = next_tag(template, from) {
        let end = tag_end(template, start, opened);
        let inner = template.get(start + 2..end.saturating_sub(2)).unwrap_or_default();
        if opened == Tag::Expression && !is_quoted(inner, syntax) {
            return Some(start..end);
        }
        from = end;
    }
    None
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Comment,
    Expression,
    Statement,
}

fn next_tag(template: &str, from: usize) -> Option<(usize, Tag)> {
    // One pass: to look for each kind of tag to the end of the text, tag by tag, would take time by the square of its length.
    let rest = template.get(from..)?;
    rest.match_indices('{').find_map(|(at, _)| {
        let tag = match rest.as_bytes().get(at + 1)? {
            b'{' => Tag::Expression,
            b'%' => Tag::Statement,
            b'#' => Tag::Comment,
            _ => return None,
        };
        Some((from + at, tag))
    })
}

fn tag_end(template: &str, start: usize, tag: Tag) -> usize {
    let close = match tag {
        Tag::Comment => "#}",
        Tag::Expression => "}}",
        Tag::Statement => "%}",
    };
    let rest = template.get(start + 2..).unwrap_or_default();
    rest.find(close).map_or(template.len(), |offset| start + 2 + offset + close.len())
}

fn is_quoted(expression: &str, syntax: Syntax) -> bool {
    let expression = expression.strip_prefix('-').unwrap_or(expression);
    let expression = expression.strip_suffix('-').unwrap_or(expression);
    let plain =
        |path: &str| !path.is_empty() && path.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    expression.split_once('|').is_some_and(|(path, filter)| plain(path.trim()) && filter.trim() == syntax.filter())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_syntax_cannot_say_is_refused() {
        for bad in ["a\nb", "a\\", "\u{1}", "ä", "\0", &"a".repeat(1025)] {
            assert!(smtpd(bad).is_err(), "{bad}");
        }
        for bad in ["a\nb", "\0", "ä"] {
            assert!(ucl(bad).is_err(), "{bad}");
        }
        for bad in
            ["", "#a", "/bin/sh", "|sh", ":include:/x", "@example.com", "a b", "a:b", "a,b", "\"a", "-a", "a\nb", "ä"]
        {
            assert!(table(bad).is_err(), "{bad}");
        }
        for bad in ["", "a b", "a\tb", "a#b", "\"a\"", "a;", "a:b", "a=b", "/a/", "[a]", "a\nb x", "a\\", "ä", "\0"] {
            assert!(map(bad).is_err(), "{bad}");
        }
        for bad in ["$host", "a\nb", "\0", "ä", &"a".repeat(2049)] {
            assert!(nginx(bad).is_err(), "{bad}");
        }
        for bad in ["{host}", "{$HOME}", "a}", "a\\", "a\nb", "ä"] {
            assert!(caddy(bad).is_err(), "{bad}");
        }
        for bad in ["", "*", "[a]", "a?", "$HTTP_HOST", "%1", "a b", "a\"", "a\nb", "ä", &"a".repeat(1025)] {
            assert!(httpd(bad).is_err(), "{bad}");
        }
        for bad in ["a\nb", "\0", "\u{202e}", "\u{ffff}"] {
            assert!(xml(bad).is_err(), "{bad}");
        }
        assert_eq!(
            table("a,b").unwrap_err().to_string(),
            "`a,b` cannot stand in a table of OpenSMTPD's: a table has no quotes, so it takes letters, digits and . _ + - = / ' @ \
             only"
        );
    }

    #[test]
    fn tera_itself_refuses_what_no_filter_quoted() {
        let mut tera = Tera::default();
        register(&mut tera);
        tera.add_raw_template("bad", "{{ a }}").unwrap();
        tera.add_raw_template("good", "{{ a | ucl }}").unwrap();
        let mut context = tera::Context::new();
        context.insert("a", "{%");
        assert_eq!(tera.render("good", &context).unwrap(), "\"\\u007b\\u0025\"");
        assert!(matches!(tera.render("bad", &context).unwrap_err().kind(), ErrorKind::Io(_)));
    }

    #[test]
    fn an_expression_that_is_not_quoted_last_is_found() {
        for good in ["", "{# {{ a }} #}{{ a.b | ucl }}", "{{- a|ucl -}}", "{% if a %}b{% endif %}"] {
            assert_eq!(first_unquoted(Syntax::Ucl, good), None, "{good}");
        }
        for bad in
            ["{{ a }}", "{{ a | smtpd }}", "{{ a | ucl | safe }}", "{{ a ~ b | ucl }}", "{{ a", "{{ f(x) | ucl }}"]
        {
            assert!(first_unquoted(Syntax::Ucl, bad).is_some(), "{bad}");
        }
        assert_eq!(first_unquoted(Syntax::Ucl, "x {{ a }}"), Some(2..9));
    }

    #[test]
    fn each_template_has_the_syntax_of_the_file_that_it_writes() {
        for (name, syntax) in [
            ("smtpd.conf", Syntax::Smtpd),
            ("smtpd/conf.d/names.conf", Syntax::Smtpd),
            ("smtpd/senders", Syntax::Table),
            ("rspamd/override.d/options.inc", Syntax::Ucl),
            ("rspamd/dkim/selectors.map", Syntax::Map),
            ("mail/expiry.txt", Syntax::Text),
            ("web/autoconfig.xml", Syntax::Xml),
            ("web/httpd.conf", Syntax::Httpd),
            ("web/nginx.conf", Syntax::Nginx),
            ("web/nginx-acme.conf", Syntax::Nginx),
            ("web/postseal.caddy", Syntax::Caddy),
        ] {
            assert_eq!(Syntax::of_template(name), syntax, "{name}");
        }
    }
}
