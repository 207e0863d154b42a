//! As much CSS as drawings have in them: properties of an element, and sheets whose selectors are a name, a class or an id.

/// A rule of a style sheet, for one selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    selector: Selector,
    /// Names in small letters, and values.
    pub(super) properties: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Selector {
    Every,
    Type(String),
    Class(String),
    Id(String),
}

impl Rule {
    /// Tells whether the rule is about an element.
    pub(super) fn is_about(&self, name: &str, class: &str, id: Option<&str>) -> bool {
        match &self.selector {
            Selector::Every => true,
            Selector::Type(of) => of == name,
            Selector::Class(of) => class.split_ascii_whitespace().any(|class| class == of),
            Selector::Id(of) => id == Some(of),
        }
    }

    /// Returns how much the rule counts beside others: more is stronger, and of two alike the later (CSS 2 §6.4.3).
    pub(super) fn weight(&self) -> u8 {
        match self.selector {
            Selector::Every => 0,
            Selector::Type(_) => 1,
            Selector::Class(_) => 2,
            Selector::Id(_) => 3,
        }
    }
}

/// How many rules the sheets of a drawing may have, and how many properties an element: each rule is held against each element.
pub(super) const MOST_RULES: usize = 500;
const MOST_PROPERTIES: usize = 200;

/// Reads the properties of an element; none if there is something that is not understood, whole.
pub(super) fn properties(text: &str) -> Option<Vec<(String, String)>> {
    let text = without_comments(text)?;
    let plain = !text.contains(['\\', '{', '}', '<', '@']);
    let parts = split(&text, ';')?;
    let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
    let properties: Option<Vec<_>> = parts.map(property).collect();
    properties.filter(|properties| plain && properties.len() <= MOST_PROPERTIES)
}

fn property(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    // What counts above all others, or stands for another value, is left to a person.
    let is_plain = !value.is_empty() && !value.contains('!');
    (is_name && is_plain).then_some((name, value))
}

/// Reads a style sheet; none if there is something that is not understood, whole.
pub(super) fn sheet(text: &str) -> Option<Vec<Rule>> {
    let text = without_comments(text)?;
    let mut rules = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (selectors, behind) = rest.split_once('{')?;
        let (body, behind) = behind.split_once('}')?;
        let properties = properties(body)?;
        for one in selectors.split(',') {
            rules.push(Rule { selector: selector(one.trim())?, properties: properties.clone() });
        }
        rest = behind.trim_start();
    }
    Some(rules)
}

fn selector(text: &str) -> Option<Selector> {
    let is_name = |text: &str| {
        text.chars().next().is_some_and(|c| !c.is_ascii_digit() && c != '-')
            && text.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    let named = |name: &str| is_name(name).then(|| name.to_owned());
    match text.chars().next()? {
        '*' if text == "*" => Some(Selector::Every),
        '.' => named(text.get(1..)?).map(Selector::Class),
        '#' => named(text.get(1..)?).map(Selector::Id),
        _ => named(text).map(Selector::Type),
    }
}

fn without_comments(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("/*") {
        // Within quotes it is none.
        if ['"', '\''].iter().any(|quote| before.matches(*quote).count() % 2 == 1) {
            return None;
        }
        out.push_str(before);
        out.push(' ');
        rest = behind.split_once("*/")?.1;
    }
    Some(out + rest)
}

/// Splits at a character that stands in no quotes and brackets; none if these do not close.
fn split(text: &str, at: char) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut quote, mut open) = (Vec::new(), 0, None, 0_usize);
    for (offset, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != c),
            (None, '"' | '\'') => quote = Some(c),
            (None, '(') => open += 1,
            (None, ')') => open = open.checked_sub(1)?,
            (None, _) if c == at && open == 0 => {
                parts.push(text.get(start..offset)?);
                start = offset + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(start..)?);
    (quote.is_none() && open == 0).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_split_where_no_quotes_and_brackets_hold_them_together() {
        let read = properties(" fill : url('a;b') ; /* x */ STROKE:#fff;").unwrap();
        assert_eq!(read, [("fill".to_owned(), "url('a;b')".to_owned()), ("stroke".to_owned(), "#fff".to_owned())]);
    }

    #[test]
    fn what_is_not_understood_is_refused_whole() {
        for text in ["fill:red !important", "fill", "fi\\6c l:red", "a:url(", ":x", "fill:red;}"] {
            assert_eq!(properties(text), None, "{text}");
        }
        for text in ["@import 'a';", "a b{fill:red}", "a:hover{fill:red}", "a{", "@media print{a{fill:red}}", "a>b{}"] {
            assert_eq!(sheet(text), None, "{text}");
        }
    }

    #[test]
    fn a_sheet_of_classes_is_read() {
        let rules = sheet(".cls-1,.cls-2{fill:#fff;}\n#a { stroke:none }").unwrap();
        assert_eq!(rules.iter().map(Rule::weight).collect::<Vec<_>>(), [2, 2, 3]);
        assert!(rules[1].is_about("path", "x cls-2", None) && !rules[1].is_about("path", "cls-1", None));
    }
}
