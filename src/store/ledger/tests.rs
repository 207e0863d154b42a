//! The ledger's promises, each tried against the database itself.

use proptest::prelude::*;
use serde_json::json;
use time::macros::datetime;

use super::*;
use crate::inventory::{CertificateStatus, ClientCertificate, Crl, DkimAlgorithm, DkimKey, DkimState, Reason};
use crate::names::{HostName, MailAddress};
use crate::policy::evidence::DmarcSource;
use crate::reports::{Report, Rows, TlsSessions};

const NOW: OffsetDateTime = datetime!(2026-09-01 12:00 UTC);
const LATER: OffsetDateTime = datetime!(2027-09-01 12:00 UTC);

fn ledger() -> Ledger {
    Ledger::prepare(Connection::open_in_memory().unwrap()).unwrap()
}

fn serial(number: u8) -> Serial {
    Serial::from_random([number; 16])
}

fn certificate(number: u8) -> NewCertificate {
    NewCertificate {
        serial: serial(number),
        pem: format!("certificate {number}\n"),
        fingerprint: Digest::of(&[number]),
        not_before: NOW,
        not_after: LATER,
    }
}

fn client(address: &str, device: &str, number: u8) -> NewClient {
    NewClient {
        address: address.parse().unwrap(),
        device: device.parse().unwrap(),
        issuer: ClientIssuer::Own {
            issuing: format!("issuing {number}\n"),
            twin: format!("twin {number}\n"),
            crl: None,
        },
    }
}

fn dkim(selector: &str) -> DkimKey {
    let what = ("example.com".parse().unwrap(), DkimAlgorithm::Rsa);
    let made = DkimKey::new(what, selector.parse().unwrap(), ("MIIB".to_owned(), Digest::of(b"key")), NOW);
    DkimKey { state: DkimState::Active, ..made }
}

fn alice() -> MailAddress {
    "alice@example.com".parse().unwrap()
}

fn with_alice() -> Ledger {
    let mut ledger = ledger();
    ledger
        .transact(|tx| {
            tx.add_user(&alice(), NOW)?;
            tx.set_placeholder("placeholder\n")?;
            tx.add_client_certificate(&certificate(1), &client("alice@example.com", "laptop", 1))
        })
        .unwrap();
    ledger
}

fn problem<T: std::fmt::Debug>(result: Result<T, LedgerError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_mutation_that_fails_leaves_nothing_behind() {
    let mut ledger = ledger();
    let failed: Result<(), LedgerError> = ledger.transact(|tx| {
        tx.add_user(&alice(), NOW)?;
        Err(LedgerError::Busy)
    });
    assert_eq!(failed, Err(LedgerError::Busy));
    assert!(ledger.is_empty().unwrap());
}

#[test]
fn nothing_is_recorded_twice() {
    let mut ledger = with_alice();
    let mut add = |number, device| {
        problem(ledger.transact(|tx| {
            tx.add_client_certificate(&certificate(number), &client("alice@example.com", device, number + 20))
        }))
    };
    assert_eq!(add(2, "laptop"), "a live certificate of `alice@example.com` for `laptop` exists already");
    assert_eq!(add(1, "phone"), format!("a certificate with the fingerprint `{}` exists already", Digest::of(&[1])));
    assert_eq!(
        problem(ledger.transact(|tx| tx.add_user(&alice(), NOW))),
        "the account `alice@example.com` exists already"
    );
    let host: HostName = "mail.example.com".parse().unwrap();
    let key = Digest::of(b"key");
    let ca_key = AuthorityKey::File(key);
    ledger.transact(|tx| tx.add_site_ca(&certificate(10), &ca_key)).unwrap();
    ledger.transact(|tx| tx.add_server_certificate(&certificate(11), &host, &key)).unwrap();
    assert_eq!(
        problem(ledger.transact(|tx| tx.add_site_ca(&certificate(12), &ca_key))),
        "a live site CA exists already"
    );
    assert_eq!(
        problem(ledger.transact(|tx| tx.add_server_certificate(&certificate(13), &host, &key))),
        "a live certificate of `mail.example.com` exists already"
    );
}

#[test]
fn a_superseded_certificate_is_admitted_until_its_overlap_is_over_and_nothing_replaces_it_again() {
    let mut ledger = with_alice();
    let (day, later) = (time::Duration::DAY, NOW + time::Duration::DAY * 30);
    ledger
        .transact(|tx| {
            tx.supersede_certificate(&serial(1), &serial(2), later)?;
            tx.add_client_certificate(&certificate(2), &client("alice@example.com", "laptop", 2))
        })
        .unwrap();
    assert_eq!(ledger.trust_list().unwrap(), "twin 1\ntwin 2\n");
    let again = ledger.transact(|tx| tx.supersede_certificate(&serial(1), &serial(3), later));
    assert!(problem(again).ends_with("is not recorded"));
    let other = ledger.sql.execute("UPDATE certificate SET superseded_by = NULL, retires_at = NULL", []);
    assert!(other.unwrap_err().to_string().contains("never renewed again"));
    assert_eq!(ledger.transact(|tx| tx.expire_certificates(later - day)).unwrap(), []);
    assert_eq!(ledger.transact(|tx| tx.expire_certificates(later)).unwrap(), [serial(1)]);
    assert_eq!(ledger.trust_list().unwrap(), "twin 2\n");
    let back = ledger.sql.execute("UPDATE certificate SET status = 'live' WHERE status = 'expired'", []);
    assert!(back.unwrap_err().to_string().contains("never admitted again"));
}

#[test]
fn what_is_held_is_not_admitted_until_it_is_confirmed() {
    let mut ledger = with_alice();
    ledger.transact(|tx| tx.hold_certificate(&serial(1))).unwrap();
    assert_eq!(ledger.trust_list().unwrap(), "placeholder\n");
    ledger.transact(|tx| tx.confirm_certificate(&serial(1))).unwrap();
    assert_eq!(ledger.trust_list().unwrap(), "twin 1\n");
}

#[test]
fn clients_of_the_ca_for_all_are_admitted_by_its_twin_alone() {
    let mut ledger = with_alice();
    let shared = NewClient { issuer: ClientIssuer::Shared(serial(9)), ..client("alice@example.com", "phone", 2) };
    ledger
        .transact(|tx| {
            tx.add_issuing_ca(&certificate(9), "twin 9\n", &AuthorityKey::File(Digest::of(b"key")))?;
            tx.add_client_certificate(&certificate(2), &shared)
        })
        .unwrap();
    assert_eq!(ledger.trust_list().unwrap(), "twin 1\ntwin 9\n");
    assert_eq!(ledger.client_pem(&serial(2)).unwrap().twin, "twin 9\n");
}

#[test]
fn the_number_of_a_crl_only_grows() {
    let mut ledger = ledger();
    let crl = |number| Crl { number, this_update: NOW, next_update: LATER };
    ledger
        .transact(|tx| {
            tx.add_issuing_ca(&certificate(9), "twin 9\n", &AuthorityKey::File(Digest::of(b"key")))?;
            tx.set_crl(&serial(9), &crl(2), "second\n")
        })
        .unwrap();
    let older = ledger.transact(|tx| tx.set_crl(&serial(9), &crl(2), "again\n"));
    assert!(problem(older).contains("only grows"));
    assert_eq!(ledger.crls().unwrap(), "second\n");
}

#[test]
fn a_newer_certificate_takes_the_place_of_a_revoked_one_in_one_step() {
    let mut ledger = with_alice();
    ledger
        .transact(|tx| {
            tx.revoke_certificate(&serial(1), Reason::Superseded, NOW)?;
            tx.add_client_certificate(&certificate(2), &client("alice@example.com", "laptop", 2))
        })
        .unwrap();
    let statuses: Vec<CertificateStatus> =
        ledger.inventory().unwrap().client_certificates.into_iter().map(|certificate| certificate.status).collect();
    assert_eq!(statuses, [CertificateStatus::Revoked, CertificateStatus::Live]);
    assert_eq!(ledger.trust_list().unwrap(), "twin 2\n");
    assert_eq!(ledger.client_pem(&serial(2)).unwrap().issuing, "issuing 2\n");
}

#[test]
fn a_revocation_is_never_taken_back() {
    let mut ledger = with_alice();
    ledger.transact(|tx| tx.revoke_certificate(&serial(1), Reason::KeyCompromise, NOW)).unwrap();
    let again = ledger.transact(|tx| tx.revoke_certificate(&serial(1), Reason::KeyCompromise, NOW));
    assert!(problem(again).ends_with("is not recorded"));
    for change in
        ["UPDATE certificate SET status = 'live', revoked_at = NULL, reason = NULL", "DELETE FROM certificate"]
    {
        assert!(ledger.sql.execute(change, []).is_err(), "{change}");
    }
}

#[test]
fn the_trust_list_is_never_empty() {
    let mut ledger = with_alice();
    assert_eq!(ledger.trust_list().unwrap(), "twin 1\n");
    ledger.transact(|tx| tx.revoke_certificate(&serial(1), Reason::KeyCompromise, NOW)).unwrap();
    assert_eq!(ledger.trust_list().unwrap(), "placeholder\n");
    assert!(matches!(self::ledger().trust_list(), Err(LedgerError::NotFound { .. })));
}

#[test]
fn who_is_removed_keeps_neither_password_nor_certificate() {
    let mut ledger = with_alice();
    ledger
        .transact(|tx| {
            tx.set_password(&alice(), &"$2b$12$hash".to_owned().into())?;
            tx.set_senders(&alice(), &["info@example.com".parse().unwrap()])
        })
        .unwrap();
    assert_eq!(ledger.credentials().unwrap().expose(), b"alice@example.com:$2b$12$hash\n");
    assert_eq!(ledger.transact(|tx| tx.remove_user(&alice(), LATER)), Ok(vec![serial(1)]));
    let inventory = ledger.inventory().unwrap();
    assert!(inventory.users.is_empty());
    assert!(inventory.client_certificates.iter().all(|one| one.status == CertificateStatus::Revoked));
    assert!(ledger.credentials().unwrap().expose().is_empty());
    let late =
        ledger.transact(|tx| tx.add_client_certificate(&certificate(2), &client("alice@example.com", "phone", 2)));
    assert_eq!(problem(late), "the account `alice@example.com` is not recorded");

    ledger.transact(|tx| tx.add_user(&alice(), LATER)).unwrap();
    let users = ledger.inventory().unwrap().users;
    assert_eq!(users.iter().map(|user| (user.since, user.senders.len())).collect::<Vec<_>>(), [(LATER, 0)]);
}

#[test]
fn a_hash_cannot_break_the_credentials_table() {
    let mut ledger = with_alice();
    for bad in ["", "a:b", "a\nb", "a b", "\u{e4}"] {
        let refused = ledger.transact(|tx| tx.set_password(&alice(), &bad.to_owned().into()));
        assert_eq!(problem(refused), "the ledger refuses it: hash_fits_the_table", "{bad:?}");
    }
}

#[test]
fn a_selector_is_used_once_and_one_key_is_active() {
    let mut ledger = ledger();
    ledger.transact(|tx| tx.add_dkim_key(&dkim("202609r"))).unwrap();
    let mut add = |key: DkimKey| problem(ledger.transact(|tx| tx.add_dkim_key(&key)));
    assert_eq!(add(dkim("202612r")), "an active rsa key of `example.com` exists already");
    assert_eq!(
        add(DkimKey { algorithm: DkimAlgorithm::Ed25519, ..dkim("202609r") }),
        "the selector `202609r` of `example.com` exists already"
    );
    assert!(ledger.sql.execute("DELETE FROM dkim_key", []).is_err());
}

#[test]
fn digests_are_those_of_the_very_bytes() {
    let mut ledger = with_alice();
    for hash in ["$2b$one", "$2b$two"] {
        ledger.transact(|tx| tx.set_password(&alice(), &hash.to_owned().into())).unwrap();
        let inventory = ledger.inventory().unwrap();
        assert_eq!(inventory.credentials, Some(Digest::of(ledger.credentials().unwrap().expose())));
        assert_eq!(inventory.trust_list, Some(Digest::of(ledger.trust_list().unwrap().as_bytes())));
    }
}

#[test]
fn events_are_told_in_the_order_they_came() {
    let mut ledger = ledger();
    for subject in ["b", "a"] {
        ledger.transact(|tx| tx.record_event(NOW, "user-add", subject, &json!({"by": "test"}))).unwrap();
    }
    let subjects: Vec<String> = ledger.events().unwrap().into_iter().map(|event| event.subject).collect();
    assert_eq!(subjects, ["b", "a"]);
}

#[test]
fn a_newer_ledger_and_a_foreign_file_are_refused() {
    let open = |pragmas: &str| {
        let sql = Connection::open_in_memory().unwrap();
        sql.execute_batch(pragmas).unwrap();
        Ledger::prepare(sql).unwrap_err()
    };
    let newer = open(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 99"));
    assert_eq!(newer, LedgerError::Newer { found: 99, known: 5 });
    assert_eq!(open("PRAGMA application_id = 77"), LedgerError::NotOurs);
    assert_eq!(open("PRAGMA user_version = 1"), LedgerError::NotOurs);
}

#[test]
fn a_value_that_is_not_of_its_kind_is_reported_not_trusted() {
    let ledger = with_alice();
    ledger.sql.execute("UPDATE account SET since = 9223372036854775807", []).unwrap();
    assert_eq!(
        problem(ledger.inventory()),
        "the ledger holds `9223372036854775807`, which is no time; bring `state` back from a backup"
    );
}

#[test]
fn a_ledger_of_the_first_version_gains_what_is_new_and_keeps_the_rest() {
    let mut sql = Connection::open_in_memory().unwrap();
    sql.execute_batch(STEPS[0]).unwrap();
    sql.execute_batch(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1")).unwrap();
    sql.execute("INSERT INTO event (at, what, subject, detail) VALUES (0, 'made', 'x', '{}')", []).unwrap();
    let made = |n: u8| format!("'{}', 'client', '{}', 'pem', 1, 2000000000", serial(n), Digest::of(&[n]));
    let columns = "serial, kind, fingerprint, certificate, not_before, not_after, status, revoked_at, reason, address, device, issuing, twin";
    sql.execute("INSERT INTO account (address, since) VALUES ('alice@example.com', 1)", []).unwrap();
    for (n, rest) in [(1, "'live', NULL, NULL"), (2, "'revoked', 5, 'keyCompromise'")] {
        let row = format!("{}, {rest}, 'alice@example.com', 'laptop', 'issuing', 'twin {n}'", made(n));
        sql.execute(&format!("INSERT INTO certificate ({columns}) VALUES ({row})"), []).unwrap();
    }
    migrate(&mut sql).unwrap();
    let ledger = Ledger { sql };
    assert_eq!(ledger.events().unwrap().len(), 1);
    let statuses: Vec<_> =
        ledger.inventory().unwrap().client_certificates.into_iter().map(|one| (one.serial, one.status)).collect();
    assert_eq!(statuses, [(serial(2), CertificateStatus::Revoked), (serial(1), CertificateStatus::Live)]);
    assert!(ledger.sql.execute("DELETE FROM certificate", []).is_err());
    let (host, root) = ("mail.example.com".parse().unwrap(), Utf8Path::new("/"));
    assert!(ledger.installed(&host, root).unwrap().is_empty());
}

#[test]
fn what_was_installed_is_known_for_its_host_and_root_alone() {
    let (mut ledger, at) =
        (Ledger::prepare(Connection::open_in_memory().unwrap()).unwrap(), OffsetDateTime::UNIX_EPOCH);
    let (host, other): (HostName, HostName) = ("mx.example.com".parse().unwrap(), "mx2.example.com".parse().unwrap());
    let file = (Utf8Path::new("/etc/smtpd.conf"), Digest::of(b"text"));
    for _ in 0..2 {
        ledger.transact(|transaction| transaction.record_installed(&host, "/".into(), file, at)).unwrap();
    }
    let found = ledger.installed(&host, "/".into()).unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [(file.0.to_owned(), file.1)]);
    assert!(ledger.installed(&other, "/".into()).unwrap().is_empty());
    assert!(ledger.installed(&host, "/srv/root".into()).unwrap().is_empty());
}

/// What an administrator, or time, does to one of four devices of two people.
#[derive(Clone, Copy, Debug)]
enum Act {
    Add(u8),
    Confirm(u8),
    Remove(u8),
    Renew(u8, u8),
    Revoke(u8),
    /// A ledger comes back from a backup: what is live is held, unless it is on the host's list (the bits of devices).
    Restore(u8),
    /// Days go by, and `tick` records what has ended.
    Tick(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..4u8).prop_map(Act::Add),
        (0..4u8).prop_map(Act::Confirm),
        (0..2u8).prop_map(Act::Remove),
        (0..4u8, 0..60u8).prop_map(|(device, overlap)| Act::Renew(device, overlap)),
        (0..4u8).prop_map(Act::Revoke),
        (0..16u8).prop_map(Act::Restore),
        (0..90u8).prop_map(Act::Tick),
    ]
}

/// A certificate as a person would keep book of it.
#[derive(Clone, Debug)]
struct Booked {
    number: u8,
    device: u8,
    is_live: bool,
    is_held: bool,
    is_replaced: bool,
    ends: OffsetDateTime,
}

/// Keeps book beside the ledger, by other means.
#[derive(Default)]
struct Book {
    certificates: Vec<Booked>,
    days: i64,
}

impl Book {
    fn now(&self) -> OffsetDateTime {
        NOW + time::Duration::days(self.days)
    }

    fn current(&mut self, device: u8) -> Option<&mut Booked> {
        self.certificates
            .iter_mut()
            .find(|one| one.device == device && (one.is_live || one.is_held) && !one.is_replaced)
    }

    fn issue(&mut self, device: u8) -> u8 {
        let number = u8::try_from(self.certificates.len()).unwrap() + 1;
        let ends = self.now() + time::Duration::days(100);
        self.certificates.push(Booked { number, device, is_live: true, is_held: false, is_replaced: false, ends });
        number
    }

    fn list(&self) -> String {
        let mut live: Vec<u8> = self.certificates.iter().filter(|one| one.is_live).map(|one| one.number).collect();
        live.sort_by_key(|number| serial(*number));
        let twins: Vec<String> = live.iter().map(|number| format!("twin {number}\n")).collect();
        if twins.is_empty() { "placeholder\n".to_owned() } else { twins.concat() }
    }
}

fn whose(device: u8) -> (String, MailAddress) {
    let address = if device < 2 { "alice@example.com" } else { "bob@example.com" };
    (format!("device{device}"), address.parse().unwrap())
}

/// Does it to both; what one refuses, the other must.
fn apply(act: Act, ledger: &mut Ledger, book: &mut Book) {
    let now = book.now();
    match act {
        Act::Add(device) => add(device, ledger, book),
        Act::Renew(device, overlap) => renew(device, overlap, ledger, book),
        Act::Confirm(device) => {
            for one in book.certificates.iter_mut().filter(|one| one.device == device && one.is_held) {
                ledger.transact(|tx| tx.confirm_certificate(&serial(one.number))).unwrap();
                (one.is_held, one.is_live) = (false, true);
            }
        }
        Act::Remove(person) => {
            let (_, address) = whose(person * 2);
            // Nobody is removed who is not there.
            let _ = ledger.transact(|tx| tx.remove_user(&address, now));
            let own = book.certificates.iter_mut().filter(|one| one.device / 2 == person);
            own.for_each(|one| (one.is_live, one.is_held) = (false, false));
        }
        Act::Revoke(device) => {
            for one in book.certificates.iter_mut().filter(|one| one.device == device) {
                let revoked =
                    ledger.transact(|tx| tx.revoke_certificate(&serial(one.number), Reason::KeyCompromise, now));
                assert_eq!(revoked.is_ok(), one.is_live || one.is_held);
                (one.is_live, one.is_held) = (false, false);
            }
        }
        Act::Restore(listed) => {
            let gone = |one: &&mut Booked| one.is_live && listed >> one.device & 1 == 0;
            for one in book.certificates.iter_mut().filter(gone) {
                ledger.transact(|tx| tx.hold_certificate(&serial(one.number))).unwrap();
                (one.is_live, one.is_held) = (false, true);
            }
        }
        Act::Tick(days) => {
            book.days += i64::from(days);
            let now = book.now();
            ledger.transact(|tx| tx.expire_certificates(now)).unwrap();
            let ended = book.certificates.iter_mut().filter(|one| one.ends <= now);
            ended.for_each(|one| (one.is_live, one.is_held) = (false, false));
        }
    }
}

fn add(device: u8, ledger: &mut Ledger, book: &mut Book) {
    let now = book.now();
    let (name, address) = whose(device);
    let taken = book.current(device).is_some();
    let number = u8::try_from(book.certificates.len()).unwrap() + 1;
    let new = NewCertificate { not_after: now + time::Duration::days(100), not_before: now, ..certificate(number) };
    let added = ledger.transact(|tx| {
        let _ = tx.add_user(&address, now);
        tx.add_client_certificate(&new, &client(address.as_str(), &name, number))
    });
    assert_eq!(added.is_err(), taken, "{added:?}");
    if !taken {
        book.issue(device);
    }
}

fn renew(device: u8, overlap: u8, ledger: &mut Ledger, book: &mut Book) {
    let now = book.now();
    let Some(old) = book.current(device).filter(|old| old.is_live) else { return };
    old.is_replaced = true;
    old.ends = old.ends.min(now + time::Duration::days(i64::from(overlap)));
    let (before, retires) = (old.number, old.ends);
    let number = book.issue(device);
    let (name, address) = whose(device);
    let new = NewCertificate { not_after: now + time::Duration::days(100), not_before: now, ..certificate(number) };
    let renew = |tx: &mut Transaction<'_>| {
        tx.supersede_certificate(&serial(before), &serial(number), retires)?;
        tx.add_client_certificate(&new, &client(address.as_str(), &name, number))
    };
    ledger.transact(renew).unwrap();
    let again = ledger.transact(|tx| tx.supersede_certificate(&serial(before), &serial(99), retires));
    assert!(again.is_err(), "what was replaced was replaced again");
}

proptest! {
    #[test]
    fn whatever_happens_the_trust_list_is_exactly_what_is_live(acts in prop::collection::vec(act(), 1..60)) {
        let (mut ledger, mut book) = (ledger(), Book::default());
        ledger.transact(|tx| tx.set_placeholder("placeholder\n")).unwrap();
        for act in acts {
            apply(act, &mut ledger, &mut book);
            prop_assert_eq!(ledger.trust_list().unwrap(), book.list(), "after {:?}", act);
            let live = ledger.inventory().unwrap().client_certificates.into_iter().filter(ClientCertificate::is_live);
            prop_assert_eq!(live.count(), book.certificates.iter().filter(|one| one.is_live).count());
        }
    }
}

#[test]
fn what_nothing_can_be_rendered_without_stays_though_it_has_ended() {
    let mut ledger = with_alice();
    let host: HostName = "mail.example.com".parse().unwrap();
    let key = Digest::of(b"key");
    ledger
        .transact(|tx| {
            tx.add_site_ca(&certificate(8), &AuthorityKey::File(key))?;
            tx.add_server_certificate(&certificate(9), &host, &key)
        })
        .unwrap();
    assert_eq!(ledger.transact(|tx| tx.expire_certificates(LATER)).unwrap(), [serial(1)]);
    assert_eq!(ledger.inventory().unwrap().server_certificates[0].serial, serial(9));
    assert_eq!(ledger.site_ca().unwrap().unwrap().serial, serial(8));
    let replaced = |tx: &mut Transaction<'_>| {
        tx.supersede_certificate(&serial(9), &serial(10), LATER)?;
        tx.add_server_certificate(&certificate(10), &host, &key)
    };
    ledger.transact(replaced).unwrap();
    assert_eq!(ledger.transact(|tx| tx.expire_certificates(LATER)).unwrap(), [serial(9)]);
}

#[test]
fn a_stage_is_kept_as_it_was_recorded_and_none_is_skipped() {
    use crate::inventory::{MxChange, MxStep, Rollout};
    use crate::stages::{DmarcPolicy, Stage, StsStage};

    let mut ledger = ledger();
    let at = datetime!(2026-11-24 12:00 UTC);
    let stage = |stage| Rollout::new("example.com".parse().unwrap(), stage, at);
    let change = MxChange { step: MxStep::Announced, since: at, seen: Some(at) };
    let sts = Rollout {
        seen: Some(at),
        max_age: Some(604_800),
        mx: vec!["a.example.com".parse().unwrap()],
        also: vec!["b.example.com".parse().unwrap(), "c.example.com".parse().unwrap()],
        change: Some(change),
        ..stage(Stage::MtaSts(StsStage::Enforce))
    };
    let dmarc = Rollout { looked: Some(at), ..stage(Stage::Dmarc(DmarcPolicy::None)) };
    let save = |ledger: &mut Ledger, rollout: &Rollout| ledger.transact(|ledger| ledger.save_rollout(rollout));
    for rollout in [&sts, &dmarc, &sts] {
        save(&mut ledger, rollout).unwrap();
    }
    assert_eq!(ledger.inventory().unwrap().rollouts, [dmarc, sts.clone()]);
    let reject = stage(Stage::Dmarc(DmarcPolicy::Reject));
    for wrong in [reject, stage(Stage::MtaSts(StsStage::Off))] {
        assert!(matches!(save(&mut ledger, &wrong), Err(LedgerError::Refused(_))), "{wrong:?}");
    }
    let forgetful = Rollout { max_age: None, ..sts };
    assert!(matches!(save(&mut ledger, &forgetful), Err(LedgerError::Refused(_))));
}

fn report(domain: &str, id: &str, sources: Vec<DmarcSource>) -> Report {
    let domain = domain.parse().unwrap();
    let (begins, ends) = (NOW - time::Duration::DAY, NOW);
    Report { reporter: "r".to_owned(), id: id.to_owned(), domain, begins, ends, rows: Rows::Dmarc(sources) }
}

fn source(address: &str, from: &str, messages: u64, passed: u64) -> DmarcSource {
    let (address, from) = (address.parse().unwrap(), from.parse().unwrap());
    DmarcSource { address, from, messages, dkim: passed, spf: 0, passed }
}

#[test]
fn evidence_is_the_sum_of_the_reports_that_end_after_a_time_and_of_one_domain_alone() {
    let mut ledger = ledger();
    let (com, org): (DomainName, DomainName) = ("example.com".parse().unwrap(), "example.org".parse().unwrap());
    let one = report("example.com", "1", vec![source("192.0.2.1", "example.com", 3, 2)]);
    let two = report(
        "a.example.com",
        "1",
        vec![source("192.0.2.1", "example.com", 4, 4), source("2001:db8::1", "a.example.com", 9, 0)],
    );
    let old = Report {
        ends: NOW - time::Duration::HOUR,
        ..report("example.com", "0", vec![source("192.0.2.9", "example.com", 50, 0)])
    };
    ledger
        .transact(|tx| {
            assert_eq!(tx.record_report(&one, &com, NOW)?, Recorded::New);
            assert_eq!(tx.record_report(&one, &com, LATER)?, Recorded::Known);
            assert_eq!(tx.record_report(&two, &com, NOW)?, Recorded::New);
            assert_eq!(tx.record_report(&old, &com, NOW)?, Recorded::New);
            let other = Report { ends: NOW - time::Duration::HOUR, ..one.clone() };
            assert_eq!(tx.record_report(&other, &com, NOW)?, Recorded::Conflict);
            let elsewhere = report("example.org", "1", vec![source("192.0.2.1", "example.org", 1, 1)]);
            tx.record_report(&elsewhere, &org, NOW).map(|_| ())
        })
        .unwrap();
    let evidence = ledger.dmarc_evidence(&com, NOW - time::Duration::HOUR).unwrap();
    let expected = [source("2001:db8::1", "a.example.com", 9, 0), source("192.0.2.1", "example.com", 7, 6)];
    assert_eq!((evidence.reports, evidence.newest, evidence.sources.as_slice()), (2, Some(NOW), expected.as_slice()));
    assert_eq!(evidence.messages(), (16, 10));
    assert_eq!(ledger.dmarc_evidence(&com, NOW - time::Duration::DAY).unwrap().messages(), (66, 60));
    let sums = ledger.report_sums("dmarc", NOW - time::Duration::HOUR).unwrap();
    let told: Vec<_> = sums.iter().map(|sums| (sums.domain.as_str(), sums.reports, sums.all, sums.passed)).collect();
    assert_eq!(told, [("example.com", 2, 16, 6), ("example.org", 1, 1, 1)]);
    // What is forgotten leaves no row behind.
    assert_eq!(ledger.transact(|tx| tx.forget_reports(NOW)), Ok(4));
    let left: i64 = ledger.sql.query_row("SELECT COUNT(*) FROM dmarc_source", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn sessions_are_told_by_result_and_host() {
    let mut ledger = ledger();
    let com: DomainName = "example.com".parse().unwrap();
    let row =
        |result, mx: Option<&str>, sessions| TlsSessions { result, mx: mx.map(|mx| mx.parse().unwrap()), sessions };
    let rows = Rows::Tls(vec![
        row(None, None, 90),
        row(Some("other"), None, 1),
        row(Some("other"), Some("mx.example.com"), 4),
    ]);
    for id in ["1", "2"] {
        let report = Report { rows: rows.clone(), ..report("example.com", id, Vec::new()) };
        ledger.transact(|tx| tx.record_report(&report, &com, NOW).map(|_| ())).unwrap();
    }
    let evidence = ledger.tls_evidence(&com, NOW - time::Duration::HOUR).unwrap();
    assert_eq!((evidence.reports, evidence.successful, evidence.failed), (2, 180, 10));
    let failures = [("other".to_owned(), Some("mx.example.com".to_owned()), 8), ("other".to_owned(), None, 2)];
    assert_eq!(evidence.failures, failures);
    let sums = ledger.report_sums("tls", NOW - time::Duration::HOUR).unwrap();
    assert_eq!((sums[0].all, sums[0].passed), (190, 180));
}

#[test]
fn the_evidence_of_one_domain_is_found_by_the_index_however_many_there_are() {
    let ledger = ledger();
    for query in [reports::DMARC, reports::TLS] {
        let mut plan = ledger.sql.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let steps = plan.query_map(["example.com", "0"], |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.map(Result::unwrap).collect();
        assert!(
            steps[0].contains("report USING COVERING INDEX report_by_domain (kind=? AND domain=? AND ends>?)"),
            "{steps:?}"
        );
        assert!(steps[1].contains("USING PRIMARY KEY (report=?)"), "{steps:?}");
    }
}
