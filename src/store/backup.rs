//! A whole site in one encrypted file, and back: a tar archive in the age format, so that `age -d` and `tar` open it where there
//! is no postseal. Both ways it is a stream, and nothing of it lies on a disk in the clear outside of the site.
//!
//! The age crate draws the file's key and nonces from the system itself.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;

use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, scrypt, x25519};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use tar::{Builder, EntryType, Header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::names::shown;
use crate::secret::Secret;
use crate::store::files::{self, ItemKind, NewFile, StoreError, while_doing};
use crate::store::{SiteDir, Writer};

/// What a backup is encrypted for.
#[derive(Debug)]
pub enum Seal {
    /// A passphrase.
    Passphrase(Secret),
    /// Whoever holds one of the keys.
    Recipients(Vec<x25519::Recipient>),
}

impl Seal {
    /// Reads public keys as age writes them, `age1...`.
    ///
    /// # Errors
    /// The number of the text that is none.
    pub fn for_recipients(texts: &[String]) -> Result<Self, usize> {
        let parsed = texts.iter().enumerate().map(|(number, text)| text.trim().parse().map_err(|_| number));
        parsed.collect::<Result<_, usize>>().map(Self::Recipients)
    }
}

/// What opens a backup.
pub enum Opener {
    /// The passphrase.
    Passphrase(Secret),
    /// Keys, one of which is a recipient's.
    Identities(Vec<x25519::Identity>),
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Opener::Passphrase",
            Self::Identities(_) => "Opener::Identities",
        })
    }
}

impl Opener {
    /// Reads private keys as `age-keygen` writes them, one a line among comments. None if a line is neither, or there is none.
    pub fn of_identities(text: &Secret) -> Option<Self> {
        let lines = text.expose_str()?.lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<x25519::Identity> = keys.map(str::parse).collect::<Result<_, _>>().ok()?;
        (!keys.is_empty()).then_some(Self::Identities(keys))
    }
}

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// When it was made.
    pub made: OffsetDateTime,
    /// How many files.
    pub files: u64,
    /// How many octets they have.
    pub octets: u64,
}

/// The first entry: says what this is, and when it was made.
const MARK: &str = "postseal-backup";
const VERSION: &str = "1";
/// Files in the site's directory that belong to a site.
const FILES: [&str; 3] = ["postseal.toml", "postseal.lock", ".gitignore"];
/// Directories there. `out/` is made anew.
const DIRECTORIES: [&str; 6] = ["bimi", "domains", "templates", "golden", "handout", "state"];
const LEDGER: &str = "state/ledger.sqlite";
/// In octets: who makes a backup that unpacks to more has something else in mind.
const LIMIT: u64 = 8 << 30;
const MOST_FILES: u64 = 1 << 20;
const LONGEST_PATH: u64 = 4096;
/// As the `age` command does it; half the memory of its own choice, for a small server.
const WORK_FACTOR: u8 = 17;
const MOST_WORK: u8 = 20;
/// A tar archive is made of these.
const BLOCK: usize = 512;

/// Tells whether a path is of what a backup carries: not what another run is at work on, nor what SQLite keeps beside a
/// ledger.
fn belongs(path: &Utf8Path) -> bool {
    let plain = path.components().all(|part| match part {
        Utf8Component::Normal(name) => !name.starts_with(".postseal-") && !name.chars().any(char::is_control),
        _ => false,
    });
    let text = path.as_str();
    let apart = ["state/lock", "state/incoming", "state/password.pending", "state/handed-over.pending"];
    let is_apart = apart.iter().any(|apart| path.starts_with(apart)) || text.starts_with("state/ledger.sqlite-");
    let (first, rest) = text.split_once('/').map_or((text, ""), |(first, rest)| (first, rest));
    let known = if rest.is_empty() { FILES.contains(&first) } else { DIRECTORIES.contains(&first) };
    // A path's components hide what they leave out.
    let is_written_so = path.components().map(|part| part.as_str()).eq(text.split('/'));
    plain && known && !is_apart && is_written_so
}

/// Tells whether only its owner may read what lies there.
fn is_secret(path: &Utf8Path) -> bool {
    path.starts_with("state") || path.starts_with("handout")
}

/// Tells whether a backup's place is taken, and removes what a killed run left beside it.
pub fn is_taken(to: &Utf8Path) -> Result<bool, StoreError> {
    files::sweep_new(files::parent(to))?;
    files::exists(to)
}

impl Writer {
    /// Writes the site into a file that must not exist. Who holds the site's lock keeps it from changing meanwhile.
    pub fn back_up(&self, to: &Utf8Path, seal: &Seal, now: OffsetDateTime) -> Result<Packed, StoreError> {
        let doing = while_doing("write", to);
        let file = NewFile::create(to)?;
        let snapshot = self.snapshot()?;
        let stream = encrypt(file, seal).map_err(&doing)?;
        let mut pack = Pack { tar: Builder::new(stream), packed: Packed { made: now, files: 0, octets: 0 }, to };
        let made = now.format(&Rfc3339).map_err(io::Error::other).map_err(&doing)?;
        pack.bytes(MARK, format!("{VERSION} {made}\n").as_bytes())?;
        for name in FILES {
            // A link to the settings is the administrator's; what they are counts.
            if let Some(content) = files::read(&self.site().path(name))? {
                pack.bytes(name, &content)?;
                pack.packed.files += 1;
            }
        }
        for name in DIRECTORIES {
            pack.below(&self.site().path(name), Utf8Path::new(name))?;
        }
        pack.file(&snapshot.path, Utf8Path::new(LEDGER))?;
        drop(snapshot);
        let (stream, packed) = pack.finish()?;
        stream.finish().map_err(&doing)?.finish()?;
        Ok(packed)
    }

    /// Copies the ledger, as of now and without what was deleted from it, into a file that goes when the result is dropped.
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let path = files::create_temporary(&self.state(), 0o600)?;
        let snapshot = Snapshot { path };
        self.ledger().copy_into(&snapshot.path)?;
        Ok(snapshot)
    }
}

struct Snapshot {
    path: Utf8PathBuf,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // What cannot be removed now, the next run removes.
        let _ = fs::remove_file(&self.path);
    }
}

fn encrypt(file: NewFile, seal: &Seal) -> io::Result<age::stream::StreamWriter<NewFile>> {
    let failed = |error: age::EncryptError| io::Error::other(error.to_string());
    match seal {
        Seal::Passphrase(passphrase) => {
            let mut recipient = scrypt::Recipient::new(secret_string(passphrase));
            recipient.set_work_factor(WORK_FACTOR);
            Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
        }
        Seal::Recipients(recipients) => {
            Encryptor::with_recipients(recipients.iter().map(|recipient| recipient as &dyn age::Recipient))
        }
    }
    .map_err(failed)?
    .wrap_output(file)
}

fn secret_string(secret: &Secret) -> SecretString {
    // Of the right size at once, so that no copy is left behind.
    SecretString::from(secret.expose_str().unwrap_or_default().to_owned())
}

/// An archive in the making.
struct Pack<'a, W: Write> {
    tar: Builder<W>,
    packed: Packed,
    /// Where it goes, for messages.
    to: &'a Utf8Path,
}

impl<W: Write> Pack<'_, W> {
    fn below(&mut self, directory: &Utf8Path, name: &Utf8Path) -> Result<(), StoreError> {
        // The directory of secrets may be a link to a disk that is encrypted; nothing in it is.
        if files::kind(directory)? == Some(ItemKind::Other) && !(name == "state" && directory.is_dir()) {
            return Err(StoreError::NotADirectory(directory.to_owned()));
        }
        for item in files::list(directory)? {
            let path = name.join(item.path.file_name().unwrap_or_default());
            if !belongs(&path) || path == LEDGER {
                continue;
            }
            match item.kind {
                ItemKind::Directory => self.below(&item.path, &path)?,
                ItemKind::File => self.file(&item.path, &path)?,
                ItemKind::Other => return Err(StoreError::NotAFile(item.path)),
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &Utf8Path, name: &Utf8Path) -> Result<(), StoreError> {
        let reading = while_doing("read", from);
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(no_link).open(from).map_err(&reading)?;
        let metadata = file.metadata().map_err(&reading)?;
        if !metadata.is_file() {
            return Err(StoreError::NotAFile(from.to_owned()));
        }
        self.begin(name, metadata.len())?;
        let mut left = metadata.len();
        let mut buffer = Zeroizing::new(vec![0; 1 << 16]);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = file.read(buffer.get_mut(..most).unwrap_or_default()).map_err(&reading)?;
            if read == 0 {
                return Err(reading(io::ErrorKind::UnexpectedEof.into()));
            }
            self.tar
                .get_mut()
                .write_all(buffer.get(..read).unwrap_or_default())
                .map_err(while_doing("write", self.to))?;
            left -= read as u64;
        }
        self.packed.files += 1;
        self.end(metadata.len())
    }

    fn bytes(&mut self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        self.begin(Utf8Path::new(name), content.len() as u64)?;
        self.tar.get_mut().write_all(content).map_err(while_doing("write", self.to))?;
        self.end(content.len() as u64)
    }

    /// Writes what stands before a file's content. The content is not left to the crate: its buffer would not be wiped.
    fn begin(&mut self, name: &Utf8Path, size: u64) -> Result<(), StoreError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(if is_secret(name) { 0o600 } else { 0o644 });
        header.set_mtime(u64::try_from(self.packed.made.unix_timestamp()).unwrap_or(0));
        header.set_size(size);
        self.tar.append_data(&mut header, name, io::empty()).map_err(while_doing("write", self.to))
    }

    /// Fills up the last block.
    fn end(&mut self, size: u64) -> Result<(), StoreError> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        let fill = if over == 0 { 0 } else { BLOCK - over };
        let zeros = [0; BLOCK];
        self.packed.octets += size;
        let written = self.tar.get_mut().write_all(zeros.get(..fill).unwrap_or_default());
        written.map_err(while_doing("write", self.to))
    }

    fn finish(self) -> Result<(W, Packed), StoreError> {
        let mut stream = self.tar.into_inner().map_err(while_doing("write", self.to))?;
        // An archive may end in any number of empty blocks. These are as long as the buffers that the age crate does not wipe.
        let zeros = vec![0; 1 << 16];
        for _ in 0..2 {
            stream.write_all(&zeros).map_err(while_doing("write", self.to))?;
        }
        Ok((stream, self.packed))
    }
}

/// A backup whose beginning was read.
pub struct Found {
    decryptor: Decryptor<BufReader<File>>,
    from: Utf8PathBuf,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Found {
    /// Reads the beginning of a file in the age format.
    pub fn read(from: &Utf8Path) -> Result<Self, StoreError> {
        let reading = while_doing("read", from);
        // A pipe would be waited for.
        if !fs::metadata(from).map_err(&reading)?.is_file() {
            return Err(StoreError::NotAFile(from.to_owned()));
        }
        let file = BufReader::new(File::open(from).map_err(&reading)?);
        let decryptor = Decryptor::new_buffered(file).map_err(|error| refused(from, error))?;
        Ok(Self { decryptor, from: from.to_owned() })
    }

    /// Tells whether it takes a passphrase, and not a key.
    pub fn is_by_passphrase(&self) -> bool {
        self.decryptor.is_scrypt()
    }

    /// Opens it.
    pub fn open(self, opener: &Opener) -> Result<Sealed, StoreError> {
        let Self { decryptor, from } = self;
        let stream = match opener {
            Opener::Passphrase(passphrase) => {
                let mut identity = scrypt::Identity::new(secret_string(passphrase));
                identity.set_max_work_factor(MOST_WORK);
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
            }
            Opener::Identities(keys) => decryptor.decrypt(keys.iter().map(|key| key as &dyn age::Identity)),
        };
        match stream {
            Ok(stream) => Ok(Sealed { stream, from }),
            Err(error) => Err(refused(&from, error)),
        }
    }
}

fn refused(from: &Utf8Path, error: DecryptError) -> StoreError {
    match error {
        // What only the library says is of the file's form.
        DecryptError::Io(source) if source.raw_os_error().is_some() => while_doing("read", from)(source),
        DecryptError::NoMatchingKeys | DecryptError::KeyDecryptionFailed | DecryptError::DecryptionFailed => {
            StoreError::WrongOpener(from.to_owned())
        }
        DecryptError::ExcessiveWork { .. } => no_backup(from, "would take this machine very long to open"),
        _ => no_backup(from, "is no file in the age format, or damaged"),
    }
}

fn no_backup(from: &Utf8Path, why: &str) -> StoreError {
    StoreError::NoBackup(format!("`{from}` {why}"))
}

/// A backup that is open, but unread.
pub struct Sealed {
    stream: age::stream::StreamReader<BufReader<File>>,
    from: Utf8PathBuf,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Sealed {
    /// Unpacks it into a directory that nobody reads yet. What is no part of a site is refused.
    pub fn unpack(self, site: &SiteDir) -> Result<Packed, StoreError> {
        let Self { stream, from } = self;
        let mut unpack =
            Unpack { site, from, made: None, files: 0, octets: 0, seen: HashSet::new(), above: HashSet::new() };
        let mut archive = tar::Archive::new(stream);
        let damaged = |from: &Utf8Path, error: &io::Error| no_backup(from, &format!("is damaged: {error}"));
        let mut long_name = None;
        let entries = archive.entries().map_err(|error| damaged(&unpack.from, &error))?.raw(true);
        for entry in entries {
            let mut entry = entry.map_err(|error| damaged(&unpack.from, &error))?;
            let kind = entry.header().entry_type();
            if kind == EntryType::GNULongName {
                long_name = Some(unpack.long_name(&mut entry)?);
                continue;
            }
            let name = match long_name.take() {
                Some(name) => name,
                None => entry.header().path_bytes().into_owned(),
            };
            let octets = entry.header().entry_size().map_err(|error| damaged(&unpack.from, &error))?;
            unpack.entry(&name, kind, octets, &mut entry)?;
        }
        let mut stream = archive.into_inner();
        // To its very end: only there it is proved that nothing was cut off.
        let rest = io::copy(&mut (&mut stream).take(LIMIT), &mut io::sink());
        rest.map_err(|error| damaged(&unpack.from, &error))?;
        unpack.finish()
    }
}

struct Unpack<'a> {
    site: &'a SiteDir,
    from: Utf8PathBuf,
    made: Option<OffsetDateTime>,
    files: u64,
    octets: u64,
    seen: HashSet<Utf8PathBuf>,
    /// The directories that were filled.
    above: HashSet<Utf8PathBuf>,
}

impl Unpack<'_> {
    fn refuse(&self, why: &str) -> StoreError {
        no_backup(&self.from, why)
    }

    fn long_name(&self, entry: &mut impl Read) -> Result<Vec<u8>, StoreError> {
        let mut name = Vec::new();
        let read = entry.take(LONGEST_PATH + 1).read_to_end(&mut name);
        read.map_err(|error| self.refuse(&format!("is damaged: {error}")))?;
        if name.len() as u64 > LONGEST_PATH {
            return Err(self.refuse("holds a path that is too long"));
        }
        Ok(name.strip_suffix(b"\0").map(<[u8]>::to_vec).unwrap_or(name))
    }

    fn entry(&mut self, name: &[u8], kind: EntryType, size: u64, content: &mut impl Read) -> Result<(), StoreError> {
        let Ok(name) = std::str::from_utf8(name) else { return Err(self.refuse("holds a path that is not in UTF-8")) };
        if self.made.is_none() {
            return self.mark(name, kind, content);
        }
        let path = Utf8Path::new(name.strip_suffix('/').filter(|_| kind == EntryType::Directory).unwrap_or(name));
        let is_top = kind == EntryType::Directory && DIRECTORIES.contains(&path.as_str());
        if !matches!(kind, EntryType::Regular | EntryType::Directory) || !(is_top || belongs(path)) {
            return Err(self.refuse(&format!("holds `{}`, which is no part of a site", shown(name))));
        }
        self.files += 1;
        self.octets = self.octets.saturating_add(size);
        if self.files > MOST_FILES || self.octets > LIMIT {
            return Err(self.refuse("holds more than any site has"));
        }
        if !self.seen.insert(path.to_owned()) {
            return Err(self.refuse(&format!("holds `{}` twice", shown(name))));
        }
        let target = self.site.path(path.as_str());
        let mode = if is_secret(path) { 0o700 } else { 0o755 };
        if kind == EntryType::Directory {
            self.files -= 1;
            return self.directory(&target, mode);
        }
        // The site's own directory is there.
        if path.components().count() > 1 {
            self.directory(files::parent(&target), mode)?;
        }
        let written = files::write_staged_from(&target, content, size, if is_secret(path) { 0o600 } else { 0o644 });
        written.map_err(|error| match error {
            // One path is a file and a directory, or the file system holds two names for one.
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                self.refuse(&format!("holds `{}` twice", shown(name)))
            }
            // What the system did not say is of the stream.
            StoreError::Io { source, .. } if source.raw_os_error().is_none() => {
                self.refuse(&format!("is damaged: {source}"))
            }
            other => other,
        })
    }

    fn directory(&mut self, path: &Utf8Path, mode: u32) -> Result<(), StoreError> {
        if self.above.contains(path) {
            return Ok(());
        }
        files::create_dir(path, mode).map_err(|error| match error {
            StoreError::Exists(path) => self.refuse(&format!("holds `{path}` twice")),
            other => other,
        })?;
        self.above.insert(path.to_owned());
        Ok(())
    }

    /// Reads the first entry, without which it is something else that somebody encrypted.
    fn mark(&mut self, name: &str, kind: EntryType, content: &mut impl Read) -> Result<(), StoreError> {
        let mut text = String::new();
        let read = content.take(100).read_to_string(&mut text);
        if name != MARK || kind != EntryType::Regular || read.is_err() {
            return Err(self.refuse("is no backup of a site"));
        }
        let (version, made) = text.trim_end().split_once(' ').unwrap_or_default();
        if version != VERSION {
            return Err(self.refuse("was written by another release of postseal"));
        }
        self.made = OffsetDateTime::parse(made, &Rfc3339).ok();
        if self.made.is_none() { Err(self.refuse("does not say when it was made")) } else { Ok(()) }
    }

    fn finish(self) -> Result<Packed, StoreError> {
        for needed in ["postseal.toml", LEDGER] {
            if !self.seen.contains(Utf8Path::new(needed)) {
                return Err(self.refuse(&format!("holds no {needed}")));
            }
        }
        for directory in &self.above {
            files::sync_directory(directory)?;
        }
        files::sync_directory(self.site.root())?;
        let made = self.made.ok_or_else(|| self.refuse("is no backup of a site"))?;
        Ok(Packed { made, files: self.files, octets: self.octets })
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn what_belongs_to_a_site_and_nothing_else_is_carried() {
        for path in
            ["postseal.toml", "domains/a.toml", "state/keys/0.key", "state/kept/mail.a.b/x/smtpd.conf", "golden/a"]
        {
            assert!(belongs(Utf8Path::new(path)), "{path}");
        }
        for path in [
            "",
            ".",
            "..",
            "/etc/passwd",
            "/state/keys",
            "../state/a",
            "state/../../a",
            "state",
            "out/a",
            "state/lock",
            "state//a",
            "state/a/",
            "state/ledger.sqlite-wal",
            "state/incoming/a",
            "state/.postseal-1-1.tmp",
            "./state/a",
            "state/./a",
            "README",
            "state/a\nb",
            ".git/config",
            "handout/.postseal-x/y",
        ] {
            assert!(!belongs(Utf8Path::new(path)), "{path}");
        }
    }

    #[test]
    fn only_keys_are_identities() {
        use age::secrecy::ExposeSecret as _;

        let of = |text: &str| Opener::of_identities(&Secret::from(text.to_owned())).is_some();
        let key = x25519::Identity::generate();
        let text = format!("# created\n\n{}\n", key.to_string().expose_secret());
        assert!(of(&text) && !of("") && !of("# nothing\n") && !of(&format!("{text}more\n")));
        let recipients = [key.to_public().to_string(), "age1nothing".to_owned()];
        assert!(Seal::for_recipients(&recipients[..1]).is_ok());
        assert_eq!(Seal::for_recipients(&recipients).err(), Some(1));
    }
}
