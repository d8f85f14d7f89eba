//! What a file of `deploy/grants` grants, and when each privilege is needed, as its comments say: `only
//! CONDITION, CONDITION: why`, and for statements that are comments themselves, the line before.

/// One privilege of a file.
#[derive(Clone, Debug)]
pub struct Privilege {
    /// `SELECT`, say.
    pub name: String,
    /// What it is granted on: `*.*`, say.
    pub on: String,
    /// Whether it may be granted to others.
    pub may_grant: bool,
    /// When it is needed: always, when there is none.
    pub only: Vec<String>,
    /// Whether the statement is a comment, for who needs more.
    pub commented: bool,
}

impl Privilege {
    /// Takes it away.
    pub fn revoke(&self) -> String {
        format!(
            "REVOKE {} ON {} FROM 'towline'@'localhost'",
            self.name, self.on
        )
    }

    /// Gives it.
    pub fn grant(&self) -> String {
        let option = if self.may_grant {
            " WITH GRANT OPTION"
        } else {
            ""
        };
        format!(
            "GRANT {} ON {} TO 'towline'@'localhost'{option}",
            self.name, self.on
        )
    }

    /// How a refusal begins to name it.
    pub fn named(&self) -> Vec<String> {
        // Several may be named in one statement.
        vec![
            format!("GRANT {} ON", self.name),
            format!("GRANT {}, ", self.name),
        ]
    }
}

/// The privileges of a file, in its order.
pub fn privileges(sql: &str) -> Vec<Privilege> {
    let mut all = Vec::new();
    let mut open: Vec<Privilege> = Vec::new();
    let mut before = "";
    for line in sql.lines() {
        let commented = line
            .strip_prefix("--   ")
            .filter(|rest| rest.starts_with("GRANT "));
        let statement = commented.unwrap_or(line);
        if commented.is_none() && line.starts_with("--") {
            before = line.trim_start_matches(['-', ' ']).trim_end_matches(':');
            continue;
        }
        if open.is_empty() && !statement.starts_with("GRANT ") {
            continue;
        }
        let (code, comment) = statement.split_once("--").unwrap_or((statement, ""));
        let comment = if commented.is_some() {
            before
        } else {
            comment.trim()
        };
        let only = match comment.strip_prefix("only ") {
            Some(only) => only.split(':').next().unwrap_or(only),
            None if commented.is_some() => comment,
            None => "",
        };
        let only: Vec<String> = only
            .split(", ")
            .filter(|only| !only.is_empty())
            .map(str::to_owned)
            .collect();
        let code = code.trim().trim_start_matches("GRANT ");
        let (names, on) = match code.strip_prefix("ON ") {
            Some(on) => ("", Some(on)),
            None => match code.split_once(" ON ") {
                Some((names, on)) => (names, Some(on)),
                None => (code, None),
            },
        };
        let names = names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        open.extend(names.map(|name| Privilege {
            name: name.to_owned(),
            on: String::new(),
            may_grant: false,
            only: only.clone(),
            commented: commented.is_some(),
        }));
        if let Some(on) = on {
            let (on, to) = on.split_once(" TO ").unwrap_or((on, ""));
            for mut privilege in open.drain(..) {
                privilege.on = on.to_owned();
                privilege.may_grant = to.contains("WITH GRANT OPTION");
                all.push(privilege);
            }
        }
    }
    all
}
