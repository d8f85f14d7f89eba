//! A report within what kubelet keeps of a termination message.

use super::{MAX_REPORT_BYTES, Report};

/// Longest message, bytes; the rest is for checks.
const MESSAGE: usize = 2000;

/// Makes a report fit: failed checks come first, and what does not fit is left out from the end.
pub(super) fn fit(mut report: Report) -> Report {
    cut(&mut report.message, MESSAGE);
    report.checks.sort_by_key(|check| check.passed);
    while bytes(&report) > MAX_REPORT_BYTES {
        if report.checks.len() > 1 {
            report.checks.pop();
        } else if let Some(last) = report
            .checks
            .first_mut()
            .filter(|c| c.check.len() + c.found.len() > 220)
        {
            cut(&mut last.check, 100);
            cut(&mut last.found, 100);
        } else if report.message.len() > 100 {
            // Characters that JSON writes as several.
            let half = report.message.len() / 2;
            cut(&mut report.message, half);
        } else if report.position.gtid.take().is_none() {
            break;
        }
    }
    report
}

fn bytes(report: &Report) -> usize {
    serde_json::to_vec(report).map_or(0, |json| json.len())
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckResult;
    use super::*;
    use crate::reason::RestoreReason;
    use proptest::prelude::*;

    fn check(name: &str, passed: bool) -> CheckResult {
        CheckResult {
            check: name.to_owned(),
            passed,
            found: "x".repeat(300),
        }
    }

    #[test]
    fn failed_checks_are_kept() {
        let mut report = Report {
            reason: Some(RestoreReason::CheckFailed),
            message: "m".repeat(1500),
            ..Report::default()
        };
        report.checks = (0..30).map(|n| check(&format!("good {n}"), true)).collect();
        report.checks.push(check("bad", false));
        let fitted = fit(report);
        assert_eq!(fitted.checks[0].check, "bad");
        assert_eq!(fitted.checks[1].check, "good 0");
        assert_eq!(fitted.message.len(), 1500);
    }

    #[test]
    fn a_report_that_fits_keeps_everything() {
        let report = Report {
            message: "short".to_owned(),
            checks: vec![check("a", true), check("b", true)],
            ..Report::default()
        };
        assert_eq!(fit(report.clone()), report);
    }

    proptest! {
        #[test]
        fn every_report_fits_and_is_read_again(
            message in ".{0,6000}",
            gtid in proptest::option::of("[a-f0-9:,-]{0,9000}"),
            checks in proptest::collection::vec((".{0,3000}", any::<bool>(), ".{0,300}"), 0..40),
        ) {
            let mut report = Report { message, ..Report::default() };
            report.position.gtid = gtid;
            report.checks = checks
                .into_iter()
                .map(|(check, passed, found)| CheckResult { check, passed, found })
                .collect();
            let fitted = fit(report);
            let json = serde_json::to_vec(&fitted).unwrap();
            prop_assert!(json.len() <= MAX_REPORT_BYTES, "{}", json.len());
            prop_assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), fitted);
        }
    }
}
