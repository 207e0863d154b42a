//! Where a PKCS#11 token keeps a private key, written as RFC 7512 has it. It never holds a PIN.

use std::fmt;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};

use crate::names::{NameError, shown};

/// A private key on a token: `pkcs11:token=TOKEN;object=LABEL?module-path=/usr/lib/MODULE.so`.
///
/// As text it has its attributes in one order, with every octet escaped that RFC 3986 reserves, so that equal places are equal
/// texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenUri {
    token: String,
    serial: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    object: Option<String>,
    id: Option<Vec<u8>>,
    module: Option<Utf8PathBuf>,
}

/// No URI of a key is longer, in octets.
const MAXIMUM: usize = 1024;

/// What every refusal but one ends with.
const FORM: &str =
    "write pkcs11:token=TOKEN;object=LABEL, and where the module is: ?module-path=/usr/lib/.../MODULE.so";

impl TokenUri {
    /// Returns the token's label.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Tells whether a token of that label, serial number, manufacturer and model is meant.
    pub fn means(&self, label: &str, serial: &str, manufacturer: &str, model: &str) -> bool {
        let agrees = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        self.token == label
            && agrees(&self.serial, serial)
            && agrees(&self.manufacturer, manufacturer)
            && agrees(&self.model, model)
    }

    /// Returns the key's label, if it is told by that.
    pub fn object(&self) -> Option<&str> {
        self.object.as_deref()
    }

    /// Returns the key's identifier, if it is told by that.
    pub fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    /// Returns the library that talks to the token, if not the one that the system has for all.
    pub fn module(&self) -> Option<&Utf8Path> {
        self.module.as_deref()
    }
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkcs11:token={}", escaped(self.token.as_bytes(), b""))?;
        let texts = [("serial", &self.serial), ("manufacturer", &self.manufacturer), ("model", &self.model)];
        for (name, value) in texts.into_iter().chain([("object", &self.object)]) {
            if let Some(value) = value {
                write!(f, ";{name}={}", escaped(value.as_bytes(), b""))?;
            }
        }
        if let Some(id) = &self.id {
            // RFC 7512 §2.3 wants every octet of an identifier escaped.
            f.write_str(";id=")?;
            id.iter().try_for_each(|octet| write!(f, "%{octet:02X}"))?;
        }
        if let Some(module) = &self.module {
            write!(f, "?module-path={}", escaped(module.as_str().as_bytes(), b"/"))?;
        }
        Ok(())
    }
}

/// Escapes what is neither unreserved (RFC 3986 §2.3) nor to be kept.
fn escaped(octets: &[u8], keep: &[u8]) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) || keep.contains(&octet);
    let escape = |octet: &u8| if plain(*octet) { char::from(*octet).to_string() } else { format!("%{octet:02X}") };
    octets.iter().map(escape).collect()
}

fn refuse(problem: impl Into<String>, mend: impl Into<String>) -> NameError {
    NameError { problem: problem.into(), mend: mend.into() }
}

/// Undoes the escapes; what may stand as it is, is what RFC 7512 §2.3 and §2.4 say.
fn unescaped(name: &str, text: &str, also: &[u8]) -> Result<Vec<u8>, NameError> {
    let digit = |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16));
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet == b'%' {
            let decoded = digit(rest.next()).zip(digit(rest.next())).map(|(high, low)| high << 4 | low);
            let decoded = decoded.and_then(|decoded| u8::try_from(decoded).ok());
            let wrong = || refuse(format!("`{name}` has a % without two hexadecimal digits"), "write % itself as %25");
            octets.push(decoded.ok_or_else(wrong)?);
        } else if octet.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,=".contains(&octet) || also.contains(&octet) {
            octets.push(octet);
        } else {
            let problem = format!("`{name}` has a character that must be escaped");
            return Err(refuse(problem, "write a blank as %20, and anything else but letters and digits in that way"));
        }
    }
    if octets.is_empty() { Err(refuse(format!("`{name}` is empty"), FORM)) } else { Ok(octets) }
}

/// As [`unescaped`], for what is text.
fn text_of(name: &str, text: &str, also: &[u8]) -> Result<String, NameError> {
    let text = String::from_utf8(unescaped(name, text, also)?)
        .map_err(|_| refuse(format!("`{name}` is not in UTF-8"), "write the label as the token shows it"))?;
    if text.chars().any(char::is_control) {
        return Err(refuse(format!("`{name}` has a control character"), "write the label as the token shows it"));
    }
    Ok(text)
}

fn set<T>(name: &str, slot: &mut Option<T>, value: T) -> Result<(), NameError> {
    if slot.replace(value).is_some() {
        return Err(refuse(format!("`{name}` stands twice"), "write it once"));
    }
    Ok(())
}

impl FromStr for TokenUri {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains("pin-value") {
            // Not shown, for it has the PIN.
            let mend = "leave pin-value out, and name the file that holds the PIN with --ca-passphrase-file";
            return Err(refuse("a PIN has no place in the URI, which is recorded and shown", mend));
        }
        let Some(rest) = text.strip_prefix("pkcs11:").filter(|_| text.len() <= MAXIMUM) else {
            return Err(refuse(format!("`{}` is no URI of a key on a token", shown(text)), FORM));
        };
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let [mut token, mut serial, mut manufacturer, mut model, mut object] = [const { None::<String> }; 5];
        let (mut id, mut module, mut kind) = (None, None, None);
        for attribute in path.split(';') {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let value = |also| text_of(name, value, also);
            match name {
                "token" => set(name, &mut token, value(b"&")?)?,
                "serial" => set(name, &mut serial, value(b"&")?)?,
                "manufacturer" => set(name, &mut manufacturer, value(b"&")?)?,
                "model" => set(name, &mut model, value(b"&")?)?,
                "object" => set(name, &mut object, value(b"&")?)?,
                "id" => {
                    let (_, raw) = attribute.split_once('=').unwrap_or_default();
                    set(name, &mut id, unescaped(name, raw, b"&")?)?;
                }
                "type" => {
                    set(name, &mut kind, ())?;
                    if value(b"&")? != "private" {
                        return Err(refuse("`type` names something else than a private key", "write type=private"));
                    }
                }
                other => return Err(refuse(format!("`{}` is no attribute that postseal heeds", shown(other)), FORM)),
            }
        }
        for attribute in query.into_iter().flat_map(|query| query.split('&')) {
            match attribute.split_once('=') {
                Some(("module-path", path)) => {
                    let path = Utf8PathBuf::from(text_of("module-path", path, b"/?|")?);
                    if !path.is_absolute() {
                        return Err(refuse("`module-path` is no absolute path", "begin it with /"));
                    }
                    set("module-path", &mut module, path)?;
                }
                _ => return Err(refuse(format!("`{}` is no query that postseal heeds", shown(attribute)), FORM)),
            }
        }
        let Some(token) = token else { return Err(refuse("the URI does not say which token", FORM)) };
        if object.is_none() && id.is_none() {
            return Err(refuse("the URI does not say which key of the token", FORM));
        }
        Ok(Self { token, serial, manufacturer, model, object, id, module })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<TokenUri, String> {
        text.parse().map_err(|error: NameError| error.to_string())
    }

    #[test]
    fn what_p11tool_prints_is_read() {
        let printed = "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=8a1f;token=Mail%20CA;id=%01%AB;object=ca;type=private";
        let uri = read(printed).unwrap();
        assert!(uri.means("Mail CA", "8a1f", "SoftHSM project", "SoftHSM v2"));
        assert!(!uri.means("Mail CA", "8a20", "SoftHSM project", "SoftHSM v2"));
        assert_eq!((uri.object(), uri.id(), uri.module()), (Some("ca"), Some(&[1, 0xab][..]), None));
    }

    #[test]
    fn a_pin_is_refused_and_never_repeated() {
        for text in ["pkcs11:token=a;object=b?pin-value=1234", "pkcs11:token=a;object=b?module-path=/m&pin-value=1234"]
        {
            let refused = read(text).unwrap_err();
            assert!(refused.contains("--ca-passphrase-file") && !refused.contains("1234"), "{refused}");
        }
    }

    #[test]
    fn what_names_no_single_private_key_is_refused() {
        for text in [
            "",
            "pkcs11:",
            "pkcs12:token=a;object=b",
            "pkcs11:token=a",
            "pkcs11:object=b",
            "pkcs11:token=;object=b",
            "pkcs11:token=a;object=b;object=c",
            "pkcs11:token=a;object=b;",
            "pkcs11:token=a;object=b;type=public",
            "pkcs11:token=a;object=b;slot-id=1",
            "pkcs11:token=a b;object=c",
            "pkcs11:token=a%2;object=c",
            "pkcs11:token=a%+1;object=c",
            "pkcs11:token=a%0A;object=c",
            "pkcs11:token=%FF;object=c",
            "pkcs11:token=ä;object=c",
            "pkcs11:token=a;object=b?",
            "pkcs11:token=a;object=b?module-path=lib.so",
            "pkcs11:token=a;object=b?module-name=softhsm2",
            "pkcs11:token=a;object=b?pin-source=file:/etc/pin",
            "pkcs11:token=a;object=b?module-path=/a&module-path=/b",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_place_reads_back_as_it_was(
            token in "[^\\p{C}]{1,32}",
            texts in prop::array::uniform3(prop::option::of("[^\\p{C}]{1,16}")),
            object in prop::option::of("[^\\p{C}]{1,16}"),
            octets in prop::collection::vec(any::<u8>(), 1..9),
            module in prop::option::of("/[^\\p{C}]{0,32}"),
        ) {
            let [serial, manufacturer, model] = texts;
            let module = module.map(Utf8PathBuf::from);
            let uri = TokenUri { token, serial, manufacturer, model, object, id: Some(octets), module };
            let text = uri.to_string();
            prop_assume!(text.len() <= MAXIMUM);
            prop_assert_eq!(read(&text), Ok(uri), "{}", text);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "(pkcs11:)?([a-z-]{0,12}=?[ -~]{0,12}[;?&%]){0,6}") {
            if let Ok(uri) = text.parse::<TokenUri>() {
                prop_assert_eq!(read(&uri.to_string()), Ok(uri));
            }
        }
    }
}
