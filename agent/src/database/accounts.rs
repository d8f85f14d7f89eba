//! Accounts and what they may do, as SQL that can be run again: an account that exists keeps its
//! password, and is granted what is missing.
//!
//! The server itself writes it (`SHOW CREATE USER`, `SHOW GRANTS`): dump tools leave it out, or,
//! as `mariadb-dump --system=users`, write what an existing account makes fail.

use super::{DatabaseError, Flavour, PRINT, Session, quoted, text_at};

/// Accounts that a server makes for itself.
const SYSTEM_ACCOUNTS: [&str; 4] = [
    "mariadb.sys",
    "mysql.infoschema",
    "mysql.session",
    "mysql.sys",
];

/// A hash of MySQL's may hold any byte.
const PRINT_HASHES: &str = "SET SESSION print_identified_with_as_hex = 1";

/// What is granted to this role holds for everybody (MariaDB 10.11); it is always there.
const PUBLIC: &str = "PUBLIC";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    /// As it is named in a statement.
    name: String,
    /// MariaDB's roles are no users.
    role: bool,
    /// MariaDB's, as it is named in a statement.
    default_role: Option<String>,
}

/// Writes the accounts of a server, piece by piece.
#[derive(Debug)]
pub struct Accounts<'a> {
    session: &'a mut Session,
    flavour: Flavour,
    accounts: Vec<Account>,
    next: usize,
    default_roles: String,
}

impl Session {
    /// The accounts, roles included, without those that the server makes for itself.
    ///
    /// # Errors
    /// [`DatabaseError`]. The user needs `SELECT` on the schema `mysql`.
    pub async fn accounts(&mut self, flavour: Flavour) -> Result<Accounts<'_>, DatabaseError> {
        self.rows("accounts", PRINT).await?;
        if flavour == Flavour::Mysql {
            self.rows("accounts", PRINT_HASHES).await?;
        }
        let accounts = list(self, flavour).await?;
        Ok(Accounts {
            session: self,
            flavour,
            accounts,
            next: 0,
            default_roles: String::new(),
        })
    }
}

async fn list(session: &mut Session, flavour: Flavour) -> Result<Vec<Account>, DatabaseError> {
    let query = match flavour {
        Flavour::Mariadb => {
            "SELECT user, host, is_role, default_role FROM mysql.user ORDER BY is_role = 'N', user, host"
        }
        Flavour::Mysql => "SELECT user, host, 'N', '' FROM mysql.user ORDER BY user, host",
    };
    let rows = session.rows("accounts", query).await?;
    let account = |row| {
        let user = text_at(row, 0)?;
        let role = text_at(row, 2)? == "Y";
        let name = match (role, quoted::name(&user)) {
            (true, _) if user == PUBLIC => PUBLIC.to_owned(),
            (true, name) => name,
            (false, name) => format!("{name}@{}", quoted::name(&text_at(row, 1)?)),
        };
        let default_role = text_at(row, 3).filter(|role| !role.is_empty());
        let account = Account {
            name,
            role,
            default_role: default_role.map(|role| quoted::name(&role)),
        };
        (!SYSTEM_ACCOUNTS.contains(&user.as_str())).then_some(account)
    };
    Ok(rows.iter().filter_map(account).collect())
}

impl Accounts<'_> {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.accounts.len() as u64
    }

    /// The next piece: all accounts, then what is granted to each, for roles are granted too, then
    /// the roles that are taken at login. `None` at the end.
    ///
    /// # Errors
    /// [`DatabaseError`]. An account that is dropped meanwhile is none.
    pub async fn next(&mut self) -> Result<Option<String>, DatabaseError> {
        let (step, count) = (self.next, self.accounts.len());
        self.next += 1;
        let Some(step) = step.checked_sub(1) else {
            return Ok(Some(
                "-- Accounts and their grants. Load the data first.\n\
                 SET NAMES utf8mb4;\nSET SESSION sql_mode = '';\n"
                    .to_owned(),
            ));
        };
        let (account, grants) = match step {
            _ if step < count => (&self.accounts[step], false),
            _ if step < 2 * count => (&self.accounts[step - count], true),
            _ if step == 2 * count => return Ok(Some(std::mem::take(&mut self.default_roles))),
            _ => return Ok(None),
        };
        let account = account.clone();
        let written = if grants {
            self.granted(&account).await
        } else {
            self.created(&account).await
        };
        match written {
            Err(DatabaseError::Query { .. }) if !self.is_there(&account).await? => {
                Ok(Some(String::new()))
            }
            written => written.map(Some),
        }
    }

    async fn is_there(&mut self, account: &Account) -> Result<bool, DatabaseError> {
        let now = list(self.session, self.flavour).await?;
        Ok(now.iter().any(|other| other.name == account.name))
    }

    async fn created(&mut self, account: &Account) -> Result<String, DatabaseError> {
        let name = &account.name;
        if let Some(role) = &account.default_role {
            self.default_roles
                .push_str(&format!("SET DEFAULT ROLE {role} FOR {name};\n"));
        }
        if account.role {
            return Ok(match name.as_str() {
                PUBLIC => String::new(),
                name => format!("CREATE ROLE IF NOT EXISTS {name};\n"),
            });
        }
        let query = format!("SHOW CREATE USER {name}");
        let rows = self.session.rows("accounts", &query).await?;
        let statement = rows.first().and_then(|row| text_at(row, 0));
        let created = statement.as_deref().and_then(create);
        let Some((statement, roles)) = created else {
            return Err(DatabaseError::Query {
                doing: "accounts",
                message: format!("{query} gave no CREATE USER"),
            });
        };
        if let Some(roles) = roles {
            self.default_roles
                .push_str(&format!("SET DEFAULT ROLE {roles} TO {name};\n"));
        }
        Ok(format!("{statement};\n"))
    }

    async fn granted(&mut self, account: &Account) -> Result<String, DatabaseError> {
        let query = format!("SHOW GRANTS FOR {}", account.name);
        let rows = self.session.rows("accounts", &query).await?;
        let lines = rows.iter().filter_map(|row| text_at(row, 0));
        Ok(lines.filter_map(|line| grant(&line)).collect())
    }
}

/// A `CREATE USER` that can be run again, and MySQL's default roles, which may not be there yet.
fn create(statement: &str) -> Option<(String, Option<&str>)> {
    let rest = statement.strip_prefix("CREATE USER ")?;
    let (rest, roles) = match quoted::split(rest, " DEFAULT ROLE ") {
        Some((before, after)) => {
            let end = quoted::find(after, " REQUIRE ")?;
            (format!("{before}{}", &after[end..]), Some(&after[..end]))
        }
        None => (rest.to_owned(), None),
    };
    Some((format!("CREATE USER IF NOT EXISTS {rest}"), roles))
}

/// A line of `SHOW GRANTS` as a statement. MariaDB says the password and limits there, too: an
/// account that exists would get them.
fn grant(line: &str) -> Option<String> {
    // It stands in the list of accounts.
    if line.starts_with("SET DEFAULT ROLE ") {
        return None;
    }
    let cut = [" IDENTIFIED ", " REQUIRE ", " WITH "]
        .into_iter()
        .filter_map(|word| quoted::find(line, word))
        .min();
    let (statement, rest) = line.split_at(cut.unwrap_or(line.len()));
    let option = ["GRANT OPTION", "ADMIN OPTION"]
        .into_iter()
        .find(|option| quoted::find(rest, option).is_some());
    Some(match option {
        Some(option) => format!("{statement} WITH {option};\n"),
        None => format!("{statement};\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accounts_that_exist_keep_what_they_have() {
        for (shown, written) in [
            (
                "GRANT USAGE ON *.* TO `app`@`%` IDENTIFIED BY PASSWORD '*14' REQUIRE SSL WITH MAX_USER_CONNECTIONS 5",
                "GRANT USAGE ON *.* TO `app`@`%`;\n",
            ),
            (
                "GRANT ALL PRIVILEGES ON *.* TO `l`@`%` IDENTIFIED VIA unix_socket OR x USING 'WITH ADMIN OPTION' WITH GRANT OPTION",
                "GRANT ALL PRIVILEGES ON *.* TO `l`@`%` WITH GRANT OPTION;\n",
            ),
            (
                "GRANT `a WITH x` TO `b REQUIRE `@`%` WITH ADMIN OPTION",
                "GRANT `a WITH x` TO `b REQUIRE `@`%` WITH ADMIN OPTION;\n",
            ),
            (
                "REVOKE INSERT ON `mysql`.* FROM `o'dd ``n\"ame`@`10.%`",
                "REVOKE INSERT ON `mysql`.* FROM `o'dd ``n\"ame`@`10.%`;\n",
            ),
        ] {
            assert_eq!(grant(shown).as_deref(), Some(written));
        }
        assert_eq!(grant("SET DEFAULT ROLE `writer` FOR `app`@`%`"), None);
    }

    #[test]
    fn default_roles_come_when_they_are_there() {
        let shown = "CREATE USER `a`@`%` IDENTIFIED WITH 'p' AS 0x24 DEFAULT ROLE `od'd ro``le REQUIRE x`@`%`,`r`@`%` REQUIRE SSL ATTRIBUTE '{\"comment\": \"it\\'s DEFAULT ROLE x REQUIRE\"}'";
        let (statement, roles) = create(shown).unwrap();
        assert_eq!(roles, Some("`od'd ro``le REQUIRE x`@`%`,`r`@`%`"));
        assert_eq!(
            statement,
            "CREATE USER IF NOT EXISTS `a`@`%` IDENTIFIED WITH 'p' AS 0x24 REQUIRE SSL ATTRIBUTE '{\"comment\": \"it\\'s DEFAULT ROLE x REQUIRE\"}'"
        );
        let plain = "CREATE USER `root`@`localhost`";
        let again = "CREATE USER IF NOT EXISTS `root`@`localhost`".to_owned();
        assert_eq!(create(plain), Some((again, None)));
        assert_eq!(create("CREATE ROLE x"), None);
    }

    proptest! {
        /// Whatever accounts, hosts and roles are called.
        #[test]
        fn names_do_not_matter(user in any::<String>(), host in any::<String>(), hash in any::<String>()) {
            let account = format!("{}@{}", quoted::name(&user), quoted::name(&host));
            let hash = format!("'{}'", hash.replace('\\', "\\\\").replace('\'', "\\'"));
            let shown = format!("GRANT SELECT ON *.* TO {account} IDENTIFIED BY PASSWORD {hash} REQUIRE SSL WITH GRANT OPTION");
            let again = format!("GRANT SELECT ON *.* TO {account} WITH GRANT OPTION;\n");
            prop_assert_eq!(grant(&shown), Some(again));
            let plain = format!("GRANT {} TO {account}", quoted::name(&user));
            prop_assert_eq!(grant(&plain), Some(format!("{plain};\n")));

            let shown = format!("CREATE USER {account} IDENTIFIED WITH 'p' AS {hash} DEFAULT ROLE {account} REQUIRE NONE ATTRIBUTE {hash}");
            let (statement, roles) = create(&shown).unwrap();
            prop_assert_eq!(roles, Some(&*account));
            prop_assert_eq!(
                statement,
                format!("CREATE USER IF NOT EXISTS {account} IDENTIFIED WITH 'p' AS {hash} REQUIRE NONE ATTRIBUTE {hash}")
            );
        }

        /// Nothing that a server prints makes it panic.
        #[test]
        fn any_line_is_read(line in any::<String>()) {
            let _ = (grant(&line), create(&line), create(&format!("CREATE USER {line}")));
        }
    }
}
