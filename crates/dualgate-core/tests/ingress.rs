//! Runs the case files of `cases/ingress` through parser, lowering, planner and table: no sockets.

mod ask;

use ask::{ask, cases, check_findings};
use dualgate_core::case::{Families, Through};

#[test]
fn every_case_holds_for_ipv4_only_ipv6_only_and_both() {
    let (mut requests, mut failures) = (0, Vec::new());
    for case in cases() {
        for families in Families::ALL {
            let snapshot = match case.snapshot(families) {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    failures.push(format!("{} ({families:?}): {error}", case.name));
                    continue;
                }
            };
            let fail = |what: String| format!("{} ({families:?}): {what}", case.name);
            failures.extend(check_findings(&case, &snapshot).into_iter().map(fail));
            if case.through == Through::Sockets {
                continue;
            }
            requests += case.requests.len();
            failures.extend(case.requests.iter().flat_map(|request| ask(&snapshot, request)).map(fail));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(requests > 3 * 250, "only {requests} requests were asked");
}

#[test]
fn all_scenarios_of_the_conformance_suite_are_there() {
    let cases = cases();
    let ids: Vec<&str> = cases.iter().flat_map(|case| &case.requests).map(|request| &*request.id).collect();
    let suite = [("DB", 6), ("HR", 6), ("IC", 1), ("LB", 1), ("PR", 16)];
    for (feature, count) in suite {
        for number in 1..=count {
            let id = format!("{feature}-{number}");
            assert!(ids.contains(&id.as_str()), "{id} is missing");
        }
    }
}

#[test]
fn no_two_requests_have_the_same_id() {
    let cases = cases();
    let mut ids: Vec<&str> =
        cases.iter().flat_map(|case| &case.requests).map(|r| &*r.id).filter(|id| !id.is_empty()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}
