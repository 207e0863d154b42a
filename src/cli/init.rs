//! `init`: a complete site from one command. It is made beside its place and moved there whole.

use std::fmt::Write as _;
use std::sync::Arc;

use camino::Utf8Path;
use serde_json::json;

use crate::cli::args::{External, Init};
use crate::cli::dkim::make_missing as make_missing_dkim_keys;
use crate::cli::failure::Failure;
use crate::cli::make::{self, ClientKey, ClientOrder, ServerKey, ServerOrder, SiteCa};
use crate::cli::report::{Report, columns};
use crate::cli::session::{self, Wanted};
use crate::cli::show::day;
use crate::cli::user::{Added, NewUser, make_user, refuse_tag};
use crate::diag::Source;
use crate::env::Env;
use crate::inventory::DkimKey;
use crate::keys::KeyKind;
use crate::names::{DeviceName, HostName, MailAddress, hex};
use crate::secret::Secret;
use crate::site::{self, Accounts, CertificateSource, InitAnswers, Site, starting_settings};
use crate::store::{Passphrase, SiteDir, Staged, Writer};

/// How long the first user's certificate is valid.
const FIRST_USER_DAYS: u16 = 365;

/// What `init` made, for its report.
struct Made {
    ca_until: time::Date,
    server_until: Vec<(HostName, time::Date)>,
    dkim: Vec<DkimKey>,
    user: Option<Added>,
    kept_passphrase: bool,
}

/// `init`
pub(super) fn init(env: &dyn Env, place: Option<&Utf8Path>, args: &Init) -> Result<Report, Failure> {
    let target = SiteDir::new(place.unwrap_or(Utf8Path::new(args.domain.as_str())));
    let settings = starting_settings(&answers(args)?);
    // What init writes must read back: a wrong option is reported against the very line that it would have become.
    let source = Arc::new(Source { path: target.path("postseal.toml"), text: settings.clone() });
    let (site, warnings) = site::load(&[source]).map_err(Failure::Input)?;
    args.user.as_ref().map_or(Ok(()), refuse_tag)?;
    if let Some(user) = &args.user
        && !site.has_domain(&user.domain())
    {
        let message = format!("`{user}` is no address of {}", args.domain);
        return Err(Failure::input(
            "user-domain-unknown",
            message,
            format!("did you mean `{}@{}`?", user.local_part(), args.domain),
        ));
    }
    let given = args.ca_passphrase_file.as_deref().map(make::read_passphrase).transpose()?;
    let wanted = Wanted { site, templates: Vec::new(), warnings };
    let suffix = hex(&make::octets::<8>(env)?);
    let mut store = Staged::new(&target, &suffix, |pause| env.wait(pause))?;
    let made = make_all(env, &wanted, args, given, &mut store)?;
    store.write_settings(&settings)?;
    session::refresh(&wanted, &store)?;
    store.settle()?;
    Ok(report(&target, args, &wanted.site, &made).done(format!("the site {} is made", target.root())))
}

fn answers(args: &Init) -> Result<InitAnswers, Failure> {
    let host = match &args.host {
        Some(host) => host.clone(),
        None => format!("mail.{}", args.domain).parse().map_err(|error: crate::names::NameError| {
            Failure::input("host-name", error.problem, "name the mail host with --host")
        })?,
    };
    Ok(InitAnswers {
        domain: args.domain.clone(),
        host,
        platform: args.platform,
        addresses: args.addresses.clone(),
        accounts: match &args.credentials {
            Some(External { kind, path }) => Accounts::External { kind: *kind, path: path.clone() },
            None => Accounts::Managed,
        },
        mx_certificate: source(args.mx_certificate.as_ref(), args.mx_key.as_ref()),
        submission_certificate: source(args.submission_certificate.as_ref(), args.submission_key.as_ref()),
        ca_key: args.ca_key,
        first_user: args.user.clone(),
    })
}

fn source(
    certificate: Option<&crate::names::AbsolutePath>,
    key: Option<&crate::names::AbsolutePath>,
) -> CertificateSource {
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            CertificateSource::Files { certificate: certificate.clone(), key: key.clone() }
        }
        _ => CertificateSource::Issued,
    }
}

fn make_all(
    env: &dyn Env,
    wanted: &Wanted,
    args: &Init,
    given: Option<Secret>,
    store: &mut Writer,
) -> Result<Made, Failure> {
    let (ca, kept_passphrase) = if let Some(uri) = &args.ca_token {
        (make::site_ca_on_token(env, &wanted.site, store, uri, given)?, false)
    } else {
        let (passphrase, kept) = passphrase(env, given, store)?;
        (make::site_ca(env, &wanted.site, store, &passphrase)?, kept)
    };
    let mut server_until = Vec::new();
    for host in wanted.site.hosts.iter().filter(|host| host.needs_issued_certificate()) {
        let order = ServerOrder { host: &host.name, days: None, key: ServerKey::Next };
        server_until.push((host.name.clone(), day(make::server_certificate(env, &ca, &order, store)?.not_after)));
    }
    let dkim = make_missing_dkim_keys(env, &wanted.site, store)?;
    let user = args.user.as_ref().map(|address| first_user(env, &wanted.site, &ca, address, store)).transpose()?;
    Ok(Made { ca_until: day(ca.certificate.facts().not_after), server_until, dkim, user, kept_passphrase })
}

/// Returns the CA's passphrase: given, asked for, or made. One that is made is kept, for nobody knows it yet.
fn passphrase(env: &dyn Env, given: Option<Secret>, store: &Writer) -> Result<(Secret, bool), Failure> {
    if let Some(given) = given {
        return Ok((given, false));
    }
    if env.person_is_there() {
        let first = env.ask_secret("passphrase for the new CA (empty: make one): ")?;
        if !first.expose().is_empty() {
            if env.ask_secret("the same again: ")? != first {
                return Err(Failure::input("password-mismatch", "the two passphrases differ", "run the command again"));
            }
            return Ok((first, false));
        }
    }
    let made = make::generated_password(env)?;
    store.put_passphrase(Passphrase::SiteCa, &made)?;
    Ok((made, true))
}

fn first_user(
    env: &dyn Env,
    site: &Site,
    ca: &SiteCa,
    address: &MailAddress,
    store: &mut Writer,
) -> Result<Added, Failure> {
    let device = DeviceName::default();
    let order = ClientOrder {
        address,
        device: &device,
        key: ClientKey::New(KeyKind::P256),
        days: FIRST_USER_DAYS,
        apple: false,
    };
    make_user(env, site, ca, &NewUser { order, senders: &[], chosen: None }, store)
}

fn report(target: &SiteDir, args: &Init, site: &Site, made: &Made) -> Report {
    let mut rows = vec![vec!["CA".to_owned(), site.ca.name.clone(), format!("until {}", made.ca_until)]];
    rows.extend(
        made.server_until
            .iter()
            .map(|(host, until)| vec!["server".to_owned(), host.to_string(), format!("until {until}")]),
    );
    rows.extend(made.dkim.iter().map(|key| {
        let name = format!("{}._domainkey.{}", key.selector, key.domain);
        vec!["DKIM".to_owned(), name, format!("{}, signs at once", key.algorithm.as_str())]
    }));
    if let (Some(user), Some(address)) = (&made.user, &args.user) {
        let what = if user.mail_password.is_some() { "certificate, mail password" } else { "certificate" };
        rows.push(vec!["user".to_owned(), address.to_string(), format!("{what}, until {}", user.certificate)]);
    }
    let mut text = format!("made the site {}/\n", target.root().as_str().trim_end_matches('/'));
    for line in columns(&rows).lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {line}");
    }
    text.push_str("what to do next:\n");
    for (number, step) in next_steps(target, args, site, made).iter().enumerate() {
        let _ = writeln!(text, "  {}. {step}", number + 1);
    }
    let json = json!({
        "site": target.root().as_str(),
        "ca_not_after": made.ca_until.to_string(),
        "dkim": made.dkim.iter().map(|key| key.selector.as_str()).collect::<Vec<_>>(),
        "user": args.user,
        "passphrase_kept": made.kept_passphrase,
    });
    Report::fine(text, json)
}

fn next_steps(target: &SiteDir, args: &Init, site: &Site, made: &Made) -> Vec<String> {
    let mut steps = Vec::new();
    if made.kept_passphrase {
        steps.push(format!(
            "take {} off this host: with state/keys/ it issues certificates",
            target.path("state/ca.passphrase")
        ));
    }
    for host in &site.hosts {
        let layout = host.platform.layout();
        let files = target.path("out").join(host.name.as_str());
        steps.push(format!(
            "install {files}/ on {} as the README shows, then:\n     {}; {}",
            host.name, layout.restart_rspamd, layout.restart_smtpd
        ));
        if site.domain_of(&host.name).is_none() {
            steps.push(format!(
                "publish the addresses of {0} in its own zone, and: {0}. TXT \"v=spf1 a -all\"",
                host.name
            ));
        } else if host.addresses.is_empty() {
            steps.push(format!(
                "write the addresses of {} into {}, then: postseal render",
                host.name,
                target.path("postseal.toml")
            ));
        }
    }
    steps.push(format!(
        "publish the records of {}, then: postseal dkim advance",
        target.path(format!("out/dns/{}.zone", args.domain))
    ));
    match &args.user {
        Some(user) => {
            let secrets = target.path("state/passwords").join(user.path_component());
            steps.push(format!(
                "give {user} {}/; the passwords lie in {secrets}/",
                target.path("handout").join(user.path_component())
            ));
        }
        None => steps.push(format!(
            "add a user, and lead postmaster@{} to them in [aliases]: postseal user add ADDRESS",
            args.domain
        )),
    }
    steps
}
