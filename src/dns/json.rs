//! Writes records for programs: each content as one text and in its parts.

use serde_json::{Value, json};

use super::{Record, RecordData, Zone, zone};

/// Returns the zones' records, and the hosts whose addresses the settings do not tell.
pub fn value(zones: &[Zone]) -> Value {
    let records = zones.iter().flat_map(|zone| zone.records.iter().map(|record| one(zone, record)));
    let hosts = zones.iter().flat_map(|zone| &zone.unaddressed);
    json!({ "records": records.collect::<Vec<_>>(), "mail_hosts_needing_addresses": hosts.collect::<Vec<_>>() })
}

fn one(zone: &Zone, record: &Record) -> Value {
    let mut value = json!({
        "name": record.name,
        "zone": zone.domain,
        "ttl": record.ttl,
        "type": record.data.kind(),
        "data": record.data.to_string(),
        "fields": fields(&record.data),
        "reason": record.reason,
        "rfc": record.rfc,
    });
    if let (RecordData::Txt(text), Value::Object(members)) = (&record.data, &mut value) {
        let strings = zone::pieces(text).map(String::from_utf8_lossy);
        members.insert("strings".to_owned(), strings.collect::<Vec<_>>().into());
    }
    value
}

/// Returns the parts of a content; names of hosts end in a dot, and `.` alone is none.
fn fields(data: &RecordData) -> Value {
    match data {
        RecordData::A(address) => json!({ "address": address }),
        RecordData::Aaaa(address) => json!({ "address": address }),
        RecordData::Caa { tag, value } => json!({ "flags": 0, "tag": tag, "value": value }),
        RecordData::Cname(host) => json!({ "target": format!("{host}.") }),
        RecordData::Mx { preference, exchange } => {
            json!({ "preference": preference, "exchange": format!("{exchange}.") })
        }
        RecordData::NullMx => json!({ "preference": 0, "exchange": "." }),
        RecordData::Srv { priority, weight, port, target } => {
            let target = target.as_ref().map_or_else(|| ".".to_owned(), |host| format!("{host}."));
            json!({ "priority": priority, "weight": weight, "port": port, "target": target })
        }
        RecordData::Tlsa(digest) => {
            json!({ "usage": 3, "selector": 1, "matching_type": 1, "association": digest.to_string() })
        }
        RecordData::Txt(text) => json!({ "text": text }),
    }
}
