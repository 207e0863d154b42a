//! Why a file differs from what was blessed: inventories made by hand, in place of key rotation and renewal.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its case fails")]

use std::sync::{Arc, LazyLock};

use postseal::inventory::{DkimAlgorithm, DkimKey, DkimState, Inventory, NextKey};
use postseal::names::{Digest, DomainName};
use postseal::plan::reason::{self, NOT_THE_LEDGER};
use postseal::plan::{Difference, Files, difference, public_files};
use postseal::render::render;
use postseal::site::{self, Domain, Signing, Site, SpfPolicy};
use postseal::store::SiteDir;
use proptest::prelude::*;
use time::macros::datetime;

const ZONE: &str = "dns/example.com.zone";
const MANIFEST: &str = "mail.example.com/MANIFEST";
const ROTATION: &str = "rotation of example.com (rsa): 202611r → 202612r, active since 2026-12-01";

/// A golden case with two domains, of which one forwards mail: as its settings and its lock tell of it.
static CASE: LazyLock<(Site, Inventory)> = LazyLock::new(|| {
    let directory = SiteDir::new("golden/two-domains");
    let settings: Vec<_> = directory.settings().unwrap().into_iter().map(Arc::new).collect();
    (site::load(&settings).unwrap().0, directory.locked_inventory().unwrap().unwrap())
});

/// What exists in another golden case, for a certificate and a CA that can be read.
fn other() -> Inventory {
    SiteDir::new("golden/debian-minimal").locked_inventory().unwrap().unwrap()
}

fn files(site: &Site, inventory: &Inventory) -> Files {
    public_files(&render(site, inventory, &[]).unwrap())
}

/// What `diff` says about golden files, with settings and an inventory.
fn explained(golden: &Files, site: &Site, inventory: &Inventory) -> Difference {
    let rendered = files(site, inventory);
    let mut found = difference(golden, &rendered);
    reason::explain(&mut found, golden, &rendered, inventory, |blessed| {
        render(site, blessed, &[]).ok().map(|tree| public_files(&tree))
    });
    found
}

/// Each change's path, without the directories that all of a host's files share, with its reasons.
fn reasons(difference: &Difference) -> Vec<(String, Vec<&str>)> {
    let short = |path: &str| path.rsplit("/root/etc/").next().unwrap().to_owned();
    let changes = difference.changes.iter();
    changes.map(|change| (short(change.path.as_str()), change.reasons.iter().map(String::as_str).collect())).collect()
}

fn rsa_key(inventory: &mut Inventory) -> &mut DkimKey {
    let mut keys = inventory.dkim_keys.iter_mut();
    keys.find(|key| key.domain.as_str() == "example.com" && key.algorithm == DkimAlgorithm::Rsa).unwrap()
}

/// Adds the next key of example.com's line for RSA, in the place of the one that is there.
fn with_next(inventory: &Inventory, old: DkimState, new: DkimState) -> Inventory {
    let mut inventory = inventory.clone();
    let key = rsa_key(&mut inventory);
    let next = DkimKey {
        selector: "202612r".parse().unwrap(),
        state: new,
        since: datetime!(2026-12-01 12:00 UTC),
        public: format!("{}AQAB", "B".repeat(388)),
        ..key.clone()
    };
    key.state = old;
    key.since = datetime!(2026-12-01 12:00 UTC);
    inventory.dkim_keys.push(next);
    inventory.dkim_keys.retain(|key| key.state != DkimState::Destroyed);
    inventory
        .dkim_keys
        .sort_by(|a, b| (&a.domain, a.algorithm, &a.selector).cmp(&(&b.domain, b.algorithm, &b.selector)));
    inventory
}

fn rotated(inventory: &Inventory) -> Inventory {
    with_next(inventory, DkimState::Retiring, DkimState::Active)
}

/// The case with the map shape.
fn mapped() -> Site {
    let mut site = CASE.0.clone();
    site.dkim.signing = Signing::SelectorMap;
    site.domains.iter_mut().for_each(|domain| domain.dkim = vec![DkimAlgorithm::Rsa]);
    site
}

fn expect(difference: &Difference, expected: &[(&str, &[&str])]) {
    let expected: Vec<_> = expected.iter().map(|(path, reasons)| ((*path).to_owned(), reasons.to_vec())).collect();
    assert_eq!(reasons(difference), expected);
}

#[test]
fn a_new_selector_is_the_reason_wherever_it_stands_and_nowhere_else() {
    let (site, inventory) = &*CASE;
    let found = explained(&files(site, inventory), site, &rotated(inventory));
    let changed = [ZONE, MANIFEST, "rspamd/local.d/arc.conf", "rspamd/local.d/dkim_signing.conf"];
    expect(&found, &changed.map(|path| (path, [ROTATION].as_slice())));
}

const PUBLISHED: &str = "202612r of example.com is published before it signs";
const REVOKED: &str = "202611r of example.com is revoked (empty p=), since 2026-12-01";
const GONE: &str = "202611r of example.com is gone: destroyed";
const ARC: &str = "rspamd/local.d/arc.conf";
const SIGNING: &str = "rspamd/local.d/dkim_signing.conf";
const MAP: &str = "mail.example.com/root/var/lib/rspamd/dkim/selectors.map";

#[test]
fn each_step_of_a_rotation_is_told_in_the_files_that_it_changes() {
    use DkimState::{Active, Destroyed, Published, Retiring, Revoked};
    let (site, inventory) = &*CASE;
    let lives = [(Active, Published), (Retiring, Active), (Revoked, Active), (Destroyed, Active)];
    let steps = lives.map(|(old, new)| with_next(inventory, old, new));
    let told = |from: usize, to: usize| explained(&files(site, &steps[from]), site, &steps[to]);
    expect(&explained(&files(site, inventory), site, &steps[0]), &[(ZONE, &[PUBLISHED])]);
    expect(&told(0, 1), &[ZONE, MANIFEST, ARC, SIGNING].map(|path| (path, [ROTATION].as_slice())));
    // The key's file leaves the host with it.
    expect(&told(1, 2), &[(ZONE, &[REVOKED]), (MANIFEST, &[REVOKED])]);
    expect(&told(2, 3), &[(ZONE, &[GONE])]);
    // Whoever looks only now sees it all at once; a host that was never told of the new key has it named by its rotation.
    let both: &[&str] = &[ROTATION, GONE];
    let last = explained(&files(site, inventory), site, &steps[3]);
    expect(&last, &[(ZONE, both), (MANIFEST, both), (ARC, &[ROTATION]), (SIGNING, &[ROTATION])]);
}

#[test]
fn a_next_key_that_came_is_the_reason_of_its_tlsa_record_in_a_clone_too() {
    let (mut site, inventory) = CASE.clone();
    site.domains.iter_mut().for_each(|domain| domain.dnssec = true);
    let waiting = |text: &str| {
        let host = site.hosts[0].name.clone();
        let (key, spki) = (Digest::of(b"file"), Digest::of(text.as_bytes()));
        let next = NextKey { host, key, spki, since: datetime!(2026-12-01 12:00 UTC) };
        Inventory { next_keys: vec![next], ..inventory.public_part() }
    };
    let [one, other] = ["one", "other"].map(|text| Digest::of(text.as_bytes()).short());
    let came = format!("a next key of mail.example.com waits: {one}");
    expect(&explained(&files(&site, &inventory), &site, &waiting("one")), &[(ZONE, &[&came])]);
    let went = format!("next key of mail.example.com: {one} → {other}");
    expect(&explained(&files(&site, &waiting("one")), &site, &waiting("other")), &[(ZONE, &[&went])]);
    expect(&explained(&files(&CASE.0, &waiting("one")), &site, &waiting("one")), &[(ZONE, &[NOT_THE_LEDGER])]);
}

#[test]
fn a_rotation_is_told_in_the_map_where_that_says_who_signs() {
    let (site, inventory) = (&mapped(), &CASE.1);
    let golden = files(site, inventory);
    let found = explained(&golden, site, &rotated(inventory));
    expect(&found, &[ZONE, MANIFEST, MAP].map(|path| (path, [ROTATION].as_slice())));
}

#[test]
fn a_rotation_of_one_domain_is_no_reason_of_another_with_a_longer_name() {
    let (site, inventory) = &*CASE;
    let (mut site, mut inventory) = (site.clone(), inventory.clone());
    let longer = |domain: &str| -> DomainName { format!("{domain}.au").parse().unwrap() };
    site.domains.push(Domain { name: longer("example.com"), ..site.domains[0].clone() });
    let keys = inventory.dkim_keys_of(&site.domains[0].name).to_vec();
    inventory.dkim_keys.extend(keys.into_iter().map(|key| DkimKey { domain: longer("example.com"), ..key }));
    inventory
        .dkim_keys
        .sort_by(|a, b| (&a.domain, a.algorithm, &a.selector).cmp(&(&b.domain, b.algorithm, &b.selector)));
    site.domains.sort_by(|one, other| one.name.cmp(&other.name));
    let golden = files(&site, &inventory);
    site.domains[1].spf = Some(SpfPolicy::Fail);
    let found = explained(&golden, &site, &rotated(&inventory));
    assert_eq!(reasons(&found)[0], ("dns/example.com.au.zone".to_owned(), vec![NOT_THE_LEDGER]));
    assert_eq!(reasons(&found)[1], (ZONE.to_owned(), vec![ROTATION]));
}

#[test]
fn what_signed_when_golden_was_blessed_is_known_without_the_remarks_of_the_zone() {
    // As another release might word them.
    let unremarked = |mut golden: Files| {
        for (_, text) in golden.iter_mut().filter(|(path, _)| path.starts_with("dns")) {
            *text = text
                .lines()
                .filter(|line| !line.starts_with("; "))
                .fold(String::new(), |text, line| text + line + "\n");
        }
        golden
    };
    for site in [&CASE.0, &mapped()] {
        // What the settings do not want signs nowhere.
        let mut inventory = CASE.1.clone();
        inventory.dkim_keys.retain(|key| site.domains[0].dkim.contains(&key.algorithm));
        let steps = [
            with_next(&inventory, DkimState::Active, DkimState::Published),
            with_next(&inventory, DkimState::Retiring, DkimState::Active),
        ];
        // Of itself no step is a reason: published, active and retiring are told apart.
        for step in &steps {
            let found = explained(&unremarked(files(site, step)), site, step);
            assert!(found.changes.iter().all(|change| change.reasons == [NOT_THE_LEDGER]), "{:?}", reasons(&found));
        }
        let found = explained(&unremarked(files(site, &steps[0])), site, &steps[1]);
        let mut of_hosts = found.changes.iter().filter(|change| !change.path.starts_with("dns"));
        assert!(of_hosts.all(|change| change.reasons == [ROTATION]), "{:?}", reasons(&found));
    }
}

#[test]
fn a_first_key_and_one_that_nothing_follows_are_told() {
    let (site, inventory) = &*CASE;
    let mut without = inventory.clone();
    without.dkim_keys.retain(|key| key.domain.as_str() != "example.com" || key.algorithm != DkimAlgorithm::Rsa);
    let found = explained(&files(site, &without), site, inventory);
    let first: &[&str] = &["new DKIM key of example.com (rsa): selector 202611r, active since 2026-11-24"];
    expect(&found, &[ZONE, MANIFEST, ARC, SIGNING].map(|path| (path, first)));
    let mut ended = inventory.clone();
    rsa_key(&mut ended).state = DkimState::Retiring;
    let found = explained(&files(site, inventory), site, &ended);
    let (no_more, retiring) = (
        "no DKIM key of example.com (rsa) signs any more: 202611r did",
        "202611r of example.com signs no more, retiring since 2026-11-24",
    );
    expect(&found, &[(ZONE, &[no_more, retiring]), (ARC, &[no_more]), (SIGNING, &[no_more])]);
}

#[test]
fn a_key_in_wrong_hands_is_told_as_rotated_and_revoked() {
    let (site, inventory) = &*CASE;
    let found = explained(&files(site, inventory), site, &with_next(inventory, DkimState::Revoked, DkimState::Active));
    let both: &[&str] = &[ROTATION, REVOKED];
    expect(&found, &[(ZONE, both), (MANIFEST, both), (ARC, &[ROTATION]), (SIGNING, &[ROTATION])]);
}

#[test]
fn a_renewed_certificate_is_the_reason_in_every_file_that_names_it() {
    let (site, inventory) = &*CASE;
    let mut renewed = inventory.clone();
    renewed.server_certificates = other().server_certificates;
    let (old, new) = (inventory.server_certificates[0].serial, renewed.server_certificates[0].serial);
    let reason = format!("certificate of mail.example.com: serial {old} → {new}, valid 2026-11-24 to 2027-06-12");
    let reason = [reason.as_str()];
    let mut pems = [old, new].map(|serial| format!("mail/postseal/tls/mail.example.com-{serial}.pem"));
    pems.sort();
    let found = explained(&files(site, inventory), site, &renewed);
    expect(&found, &[(MANIFEST, &reason), (&pems[0], &reason), (&pems[1], &reason), ("smtpd.conf", &reason)]);
}

#[test]
fn of_two_changes_of_the_ledger_each_file_tells_its_own() {
    let (site, inventory) = &*CASE;
    let both = Inventory { server_certificates: other().server_certificates, ..rotated(inventory) };
    let found = explained(&files(site, inventory), site, &both);
    let certificate = |reason: &str| reason.starts_with("certificate of mail.example.com: serial ");
    for (path, reasons) in reasons(&found) {
        match path.as_str() {
            MANIFEST => assert!(certificate(reasons[0]) && reasons[1..] == [ROTATION], "{reasons:?}"),
            path if path.contains("/tls/") || path == "smtpd.conf" => {
                assert!(certificate(reasons[0]) && reasons.len() == 1, "{path} {reasons:?}");
            }
            _ => assert_eq!(reasons, [ROTATION], "{path}"),
        }
    }
}

#[test]
fn a_new_site_ca_is_a_reason_of_the_chains_that_end_in_it() {
    let (site, inventory) = &*CASE;
    let found =
        explained(&files(site, inventory), site, &Inventory { dkim_keys: inventory.dkim_keys.clone(), ..other() });
    let ca = "site CA: made anew, valid 2026-11-24 to 2036-11-23";
    let with: Vec<_> = found.changes.iter().filter(|change| change.reasons.iter().any(|one| one == ca)).collect();
    assert_eq!(with.len(), 2);
    assert!(with.iter().all(|change| change.path.extension() == Some("pem") && change.reasons.len() == 2));
}

#[test]
fn what_the_ledger_has_no_part_in_is_said_to_come_from_elsewhere() {
    let (site, inventory) = &*CASE;
    let mut stricter = site.clone();
    stricter.domains[0].spf = Some(SpfPolicy::Fail);
    expect(&explained(&files(site, inventory), &stricter, inventory), &[(ZONE, &[NOT_THE_LEDGER])]);
    // Beside a rotation too: only the zone has both reasons.
    let found = explained(&files(site, inventory), &stricter, &rotated(inventory));
    assert_eq!(reasons(&found)[0], (ZONE.to_owned(), vec![ROTATION, NOT_THE_LEDGER]));
    assert_eq!(reasons(&found)[1], (MANIFEST.to_owned(), vec![ROTATION]));
}

#[test]
fn a_file_that_was_taken_out_of_golden_makes_no_key_or_certificate_new() {
    let (site, inventory) = &*CASE;
    let mut golden = files(site, inventory);
    golden.retain(|path, _| path != ZONE && path.extension() != Some("pem"));
    let found = explained(&golden, site, inventory);
    assert_eq!(found.changes.len(), 2);
    assert!(found.changes.iter().all(|change| change.reasons == [NOT_THE_LEDGER]), "{:?}", reasons(&found));
}

#[test]
fn another_key_under_the_same_selector_is_no_rotation() {
    let (site, inventory) = &*CASE;
    let mut golden = files(site, inventory);
    let public = rsa_key(&mut inventory.clone()).public.clone();
    let zone = golden.get_mut(camino::Utf8Path::new(ZONE)).unwrap();
    *zone = zone.replacen(&public[..40], &"C".repeat(40), 1);
    let told =
        "DKIM key of example.com (rsa): golden/ has another one under the selector 202611r, active since 2026-11-24";
    expect(&explained(&golden, site, inventory), &[(ZONE, &[told])]);
}

#[test]
fn a_domain_that_left_the_settings_is_the_settings_doing() {
    let (site, inventory) = &*CASE;
    let mut smaller = site.clone();
    smaller.domains.retain(|domain| domain.name.as_str() == "example.com");
    // With its keys still in the ledger, and with its keys gone.
    let mut without = inventory.clone();
    without.dkim_keys.retain(|key| key.domain.as_str() == "example.com");
    let found = explained(&files(site, inventory), &smaller, inventory);
    assert!(found.changes.iter().any(|change| change.path == "dns/example.org.zone"));
    assert!(found.changes.iter().all(|change| change.reasons == [NOT_THE_LEDGER]), "{:?}", reasons(&found));
    let found = explained(&files(site, inventory), &smaller, &without);
    assert!(found.changes.iter().all(|change| change.reasons.last().is_some_and(|reason| reason == NOT_THE_LEDGER)));
    let destroyed = "202611r of example.org is gone: destroyed";
    assert!(found.changes.iter().any(|change| change.reasons.iter().any(|reason| reason == destroyed)));
}

proptest! {
    #[test]
    fn hostile_golden_files_are_explained_without_a_panic(
        text in "(.|\n){0,200}",
        name in "[ -~]{1,40}",
        lines in prop::collection::vec("[a-z0-9.]{0,9}\\._domainkey\\.[a-z.]{0,9}\\. 3600 IN TXT [\"a-z;= ]{0,30}", 0..5),
        keys in prop::collection::vec("_25\\._tcp\\.[a-z.]{0,9}\\. 3600 IN TLSA 3 1 1 [0-9a-f]{0,70}", 0..3),
    ) {
        let (site, inventory) = &*CASE;
        let mut golden = files(site, inventory);
        golden.insert(ZONE.into(), lines.join("\n") + "\n" + &keys.join("\n"));
        golden.insert(MANIFEST.into(), text.clone());
        golden.insert(format!("dns/{name}").into(), text.clone());
        golden.insert(format!("mail.example.com/root/tls/mail.example.com-{}.pem", "4".repeat(32)).into(), text);
        let found = explained(&golden, site, inventory);
        prop_assert!(found.changes.iter().all(|change| change.reasons.iter().all(|reason| !reason.contains('\n'))));
    }
}
