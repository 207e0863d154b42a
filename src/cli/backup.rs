//! `backup`: the whole site in one encrypted file.

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::make;
use crate::cli::report::Report;
use crate::cli::session;
use crate::env::Env;
use crate::names::shown;
use crate::secret::Secret;
use crate::store::SiteDir;
use crate::store::backup::{Seal, is_taken};

/// `backup`
#[derive(Debug, clap::Args)]
pub(super) struct Backup {
    /// The file to write, which must not exist
    #[arg(value_name = "FILE")]
    pub(super) file: Utf8PathBuf,
    /// The file that holds the backup's own passphrase [default: ask]
    #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
    pub(super) passphrase_file: Option<Utf8PathBuf>,
    /// A public key of age, age1..., whose holder can open the backup; may be given again
    #[arg(long, value_name = "AGE1")]
    pub(super) recipient: Vec<String>,
}

/// `backup`
pub(super) fn backup(env: &dyn Env, site: Option<&Utf8Path>, args: &Backup) -> Result<Report, Failure> {
    let directory = session::directory(site);
    if is_taken(&args.file)? {
        let message = format!("`{}` exists already", args.file);
        return Err(Failure::input("file-name", message, "name another file: a backup is never written over one"));
    }
    refuse_inside(&directory, &args.file)?;
    let seal = seal(env, args)?;
    let store = session::writer(env, directory)?;
    let packed = store.back_up(&args.file, &seal, env.now())?;
    let word = crate::names::shell_word(args.file.as_str());
    let text = format!(
        "wrote {}: {} files, {} KiB before encryption\nbring it back: postseal restore {word} --site DIR\n",
        args.file,
        packed.files,
        packed.octets.div_ceil(1024)
    );
    let json = json!({ "file": args.file.as_str(), "files": packed.files, "octets": packed.octets });
    Ok(Report::fine(text, json).done(format!("{} is written", args.file)))
}

/// A backup that lies in what is backed up would be in the next one.
fn refuse_inside(site: &SiteDir, file: &Utf8Path) -> Result<(), Failure> {
    let above = file.parent().filter(|above| !above.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    let Ok(above) = above.canonicalize_utf8() else { return Ok(()) };
    let parts = ["state", "handout", "domains", "templates", "golden", "out"];
    let inside = parts.into_iter().filter_map(|part| site.path(part).canonicalize_utf8().ok());
    if inside.into_iter().any(|part| above.starts_with(part)) {
        let help = "write it to another place, best on another disk";
        return Err(Failure::input("file-name", format!("`{file}` lies in what it would hold"), help));
    }
    Ok(())
}

fn seal(env: &dyn Env, args: &Backup) -> Result<Seal, Failure> {
    if let Some(file) = &args.passphrase_file {
        return Ok(Seal::Passphrase(make::read_passphrase(file)?));
    }
    if args.recipient.is_empty() {
        return asked(env).map(Seal::Passphrase);
    }
    Seal::for_recipients(&args.recipient).map_err(|number| {
        let text = args.recipient.get(number).map_or("", String::as_str);
        // Somebody may take the one line of the file for the other.
        if text.to_ascii_uppercase().contains("SECRET-KEY") {
            let help = "give the public key, age1...; as this one stood on a command line, make a new one: age-keygen";
            return Failure::input("backup-recipient", "a private key was given as --recipient", help);
        }
        let help = "a recipient is a public key that age-keygen made: age1 and 58 letters and digits";
        Failure::input("backup-recipient", format!("`{}` is no recipient", shown(text)), help)
    })
}

fn asked(env: &dyn Env) -> Result<Secret, Failure> {
    if !env.person_is_there() {
        let help = "give --passphrase-file FILE or --recipient age1..., or run this on a terminal";
        let message = "a backup holds every key of the site, and nothing says for whom it is to be encrypted";
        return Err(Failure::input("backup-passphrase", message, help));
    }
    let first = env.ask_secret("passphrase for the backup: ")?;
    if first.expose().is_empty() {
        let help = "type one that is worth the CA's key: six words drawn by lot";
        return Err(Failure::input("empty-secret", "the passphrase is empty", help));
    }
    if env.ask_secret("the same again: ")? != first {
        return Err(Failure::input("password-mismatch", "the two passphrases differ", "run the command again"));
    }
    Ok(first)
}
