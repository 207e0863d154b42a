//! The users and groups of a host, as its own passwd and group files name them: the host may not be the running system.

use std::collections::BTreeMap;

use camino::Utf8Path;

use crate::host::HostError;

/// Users with their groups, and groups.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Accounts {
    users: BTreeMap<String, (u32, u32)>,
    groups: BTreeMap<String, u32>,
}

impl Accounts {
    /// Reads `passwd` and `group` in a directory; nothing where they are not.
    pub(super) fn read(directory: &Utf8Path) -> Result<Option<Self>, HostError> {
        let read = |name: &str| {
            let path = directory.join(name);
            match std::fs::File::open(&path).and_then(std::io::read_to_string) {
                Ok(text) => Ok(Some(text)),
                Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(HostError::io("read", &path, error)),
            }
        };
        match (read("passwd")?, read("group")?) {
            (Some(passwd), Some(group)) => Ok(Some(Self::parse(&passwd, &group))),
            _ => Ok(None),
        }
    }

    /// Reads the two files' text; lines that are none of theirs are passed over, as the system does.
    fn parse(passwd: &str, group: &str) -> Self {
        let number = |text: Option<&str>| text?.parse::<u32>().ok();
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((name, (number(fields.nth(1))?, number(fields.next())?)))
        };
        let group_of = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((name, number(fields.nth(1))?))
        };
        // The first of two lines counts: later ones are inserted first.
        Self {
            users: passwd.lines().rev().filter_map(user).collect(),
            groups: group.lines().rev().filter_map(group_of).collect(),
        }
    }

    /// Returns a user's number.
    pub(super) fn user(&self, name: &str) -> Result<u32, HostError> {
        self.user_and_group(name).map(|(user, _)| user)
    }

    /// Returns the numbers of a user and of its own group.
    pub(super) fn user_and_group(&self, name: &str) -> Result<(u32, u32), HostError> {
        let missing = || HostError::NoAccount { kind: "user", name: name.to_owned() };
        self.users.get(name).copied().ok_or_else(missing)
    }

    /// Returns a group's number.
    pub(super) fn group(&self, name: &str) -> Result<u32, HostError> {
        let missing = || HostError::NoAccount { kind: "group", name: name.to_owned() };
        self.groups.get(name).copied().ok_or_else(missing)
    }

    /// Returns a user's name, or the number where it has none.
    pub(super) fn user_name(&self, number: u32) -> String {
        let named = self.users.iter().find(|(_, (user, _))| *user == number);
        named.map_or_else(|| number.to_string(), |(name, _)| name.clone())
    }

    /// Returns a group's name, or the number where it has none.
    pub(super) fn group_name(&self, number: u32) -> String {
        let named = self.groups.iter().find(|(_, group)| **group == number);
        named.map_or_else(|| number.to_string(), |(name, _)| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_host_and_the_first_line_counts() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n_rspamd:x:106:112::/:/bin/false\nbroken\n_rspamd:x:1:1::/:\n";
        let accounts = Accounts::parse(passwd, "root:x:0:\n_rspamd:x:112:opensmtpd\n");
        assert_eq!(accounts.user_and_group("_rspamd").unwrap(), (106, 112));
        assert_eq!(accounts.group("_rspamd").unwrap(), 112);
        assert_eq!((accounts.user_name(106), accounts.group_name(7)), ("_rspamd".to_owned(), "7".to_owned()));
        let missing = accounts.user("opensmtpd").unwrap_err().to_string();
        assert_eq!(missing, "the host has no user `opensmtpd`; install the daemons' packages first");
    }
}
