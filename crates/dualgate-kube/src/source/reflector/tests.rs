//! Hours of conversation on a virtual clock.

use super::*;

/// A reflector and the time.
struct Talk {
    reflector: Reflector,
    start: Instant,
    now: Instant,
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn failure(why: Why) -> Failure {
    Failure::new(why, "as the test says")
}

fn first_page() -> Ask {
    Ask::Page { after: None }
}

impl Talk {
    fn begin() -> Self {
        let start = Instant::now();
        Self { reflector: Reflector::new(7, start), start, now: start }
    }

    /// One that watches from the version `v1`.
    fn watching() -> Self {
        let mut talk = Self::begin();
        assert_eq!(talk.asks(), first_page());
        talk.reflector.handle_head(talk.now);
        assert_eq!(talk.reflector.handle_page("v1".into(), None, talk.now), Listed::All);
        talk.watches("v1");
        talk
    }

    /// What it asks at once.
    fn asks(&mut self) -> Ask {
        self.reflector.poll_ask(self.now).expect("it waits")
    }

    /// What it asks next, and after how long.
    fn asks_later(&mut self) -> (Ask, Duration) {
        let before = self.now;
        for _ in 0..10 {
            self.reflector.handle_timeout(self.now);
            if let Some(ask) = self.reflector.poll_ask(self.now) {
                return (ask, self.now - before);
            }
            let at = self.reflector.poll_timeout();
            assert!(at > self.now, "it waits for what is past");
            self.now = at;
        }
        panic!("it asks nothing");
    }

    /// It watches from here at once, and the server agrees; for how long.
    fn watches(&mut self, from: &str) -> Duration {
        let (ask, pause) = self.asks_later();
        let Ask::Watch { version, lasting } = ask else { panic!("{ask:?}") };
        assert_eq!((version.as_str(), pause), (from, Duration::ZERO));
        self.reflector.handle_head(self.now);
        lasting
    }

    fn fails(&mut self, why: Why) {
        self.reflector.handle_failure(failure(why), self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn a_list_is_read_page_by_page_and_then_watched() {
    let mut talk = Talk::begin();
    assert_eq!(talk.asks(), first_page());
    assert_eq!(talk.reflector.poll_ask(talk.now), None, "one question at a time");
    assert_eq!(talk.reflector.handle_page("v1".into(), Some("token".into()), talk.now), Listed::More);
    assert_eq!(talk.asks(), Ask::Page { after: Some("token".into()) });
    assert_eq!(talk.reflector.handle_page("v1".into(), Some(String::new()), talk.now), Listed::All);
    let lasting = talk.watches("v1");
    assert!((seconds(290)..seconds(590)).contains(&lasting), "{lasting:?}");
    let expected = Counters { lists: 1, watches: 1, failures: 0, events: 0 };
    assert_eq!(talk.reflector.counters(), expected);
}

#[test]
fn a_page_whose_token_has_expired_begins_the_list_anew() {
    let mut talk = Talk::begin();
    talk.asks();
    talk.reflector.handle_page("v1".into(), Some("token".into()), talk.now);
    talk.asks();
    talk.fails(Why::Gone);
    assert_eq!(talk.asks_later().0, first_page());
}

#[test]
fn a_page_that_is_cut_is_asked_for_again_and_the_list_goes_on() {
    for why in [Why::Cut, Why::Busy] {
        let mut talk = Talk::begin();
        talk.asks();
        talk.reflector.handle_page("v1".into(), Some("token".into()), talk.now);
        talk.asks();
        talk.fails(why);
        assert_eq!(talk.asks_later().0, Ask::Page { after: Some("token".into()) }, "{why:?}");
    }
}

#[test]
fn the_next_watch_goes_on_where_the_last_one_ended() {
    let mut talk = Talk::watching();
    talk.pass(seconds(300));
    talk.reflector.handle_octets(talk.now);
    talk.reflector.handle_event("of an object".into());
    talk.reflector.handle_end(talk.now);
    talk.watches("of an object");
    talk.reflector.handle_bookmark("of a bookmark".into(), talk.now);
    talk.pass(seconds(5));
    talk.reflector.handle_end(talk.now);
    talk.watches("of a bookmark");
    assert_eq!(talk.reflector.counters(), Counters { lists: 1, watches: 3, failures: 0, events: 1 });
}

#[test]
fn a_watch_that_is_cut_goes_on_after_a_moment() {
    let mut talk = Talk::watching();
    talk.pass(seconds(100));
    talk.fails(Why::Cut);
    let (ask, pause) = talk.asks_later();
    assert!(matches!(ask, Ask::Watch { version, .. } if version == "v1"));
    assert!((millis(100)..=millis(200)).contains(&pause), "{pause:?}");
}

#[test]
fn a_forgotten_version_is_listed_anew_and_a_server_that_always_forgets_is_not_stormed() {
    let mut talk = Talk::watching();
    let mut lists = 0;
    while talk.now < talk.start + seconds(3600) {
        talk.fails(Why::Gone);
        assert_eq!(talk.asks_later().0, first_page());
        talk.reflector.handle_page("v2".into(), None, talk.now);
        lists += 1;
        talk.watches("v2");
    }
    assert!(lists < 260, "{lists} lists in an hour");
}

#[test]
fn a_server_that_fails_whatever_it_is_asked_is_asked_less_and_less() {
    for why in [Why::Unreachable, Why::Cut, Why::Busy, Why::Refused(Refusal::Forbidden), Why::Wrong] {
        let mut talk = Talk::begin();
        let mut pauses = Vec::new();
        while talk.now < talk.start + seconds(600) {
            let (ask, pause) = talk.asks_later();
            assert_eq!(ask, first_page());
            pauses.push(pause);
            talk.fails(why);
        }
        assert!(pauses[1] >= millis(100) && pauses[1] <= millis(200), "{pauses:?}");
        assert!(pauses.iter().skip(9).all(|pause| (seconds(15)..=seconds(30)).contains(pause)), "{pauses:?}");
        assert!((25..50).contains(&pauses.len()), "{why:?}: {}", pauses.len());
    }
}

#[test]
fn after_a_calm_time_the_first_pause_is_short_again() {
    let mut talk = Talk::watching();
    for _ in 0..8 {
        talk.fails(Why::Cut);
        talk.asks_later();
        talk.reflector.handle_head(talk.now);
    }
    talk.fails(Why::Cut);
    assert!(talk.asks_later().1 > seconds(10));
    talk.reflector.handle_head(talk.now);
    talk.pass(CALM);
    talk.fails(Why::Cut);
    assert!(talk.asks_later().1 <= millis(200));
}

#[test]
fn no_two_seeds_come_back_at_the_same_time() {
    let pause = |seed| {
        let now = Instant::now();
        let mut reflector = Reflector::new(seed, now);
        (0..10).for_each(|_| reflector.handle_failure(failure(Why::Unreachable), now));
        reflector.poll_timeout() - now
    };
    let mut pauses: Vec<Duration> = (0..20).map(pause).collect();
    pauses.sort();
    pauses.dedup();
    assert_eq!(pauses.len(), 20);
}

#[test]
fn the_server_says_how_long_it_wants_to_be_left_in_peace_within_reason() {
    for (asked, (least, most)) in [(7, (7, 8)), (86_400, (120, 121)), (0, (0, 1))] {
        let mut talk = Talk::begin();
        talk.asks();
        let busy = Failure { retry_after: Some(seconds(asked)), ..failure(Why::Busy) };
        talk.reflector.handle_failure(busy, talk.now);
        let pause = talk.asks_later().1;
        assert!((seconds(least)..seconds(most)).contains(&pause), "{asked}: {pause:?}");
    }
}

#[test]
fn a_watch_that_outlasts_its_time_is_dead_and_goes_on_from_its_version() {
    let mut talk = Talk::begin();
    talk.asks();
    talk.reflector.handle_page("v1".into(), None, talk.now);
    let lasting = talk.watches("v1");
    let (ask, after) = talk.asks_later();
    assert!(matches!(ask, Ask::Watch { version, .. } if version == "v1"));
    assert!((lasting + WATCH_GRACE..lasting + WATCH_GRACE + seconds(1)).contains(&after), "{after:?}");
}

#[test]
fn a_watch_with_bookmarks_is_dead_when_they_stay_away() {
    let mut talk = Talk::watching();
    for _ in 0..3 {
        talk.pass(seconds(60));
        talk.reflector.handle_octets(talk.now);
        talk.reflector.handle_bookmark("v2".into(), talk.now);
    }
    talk.pass(seconds(10));
    talk.reflector.handle_octets(talk.now);
    talk.reflector.handle_event("v3".into());
    let (ask, after) = talk.asks_later();
    assert!(matches!(ask, Ask::Watch { version, .. } if version == "v3"));
    assert!((BOOKMARK_SILENCE..BOOKMARK_SILENCE + seconds(1)).contains(&after), "{after:?}");
}

#[test]
fn a_page_that_trickles_is_waited_for_and_one_that_stands_still_is_not() {
    let mut talk = Talk::begin();
    talk.asks();
    for _ in 0..8 {
        talk.pass(seconds(30));
        talk.reflector.handle_timeout(talk.now);
        talk.reflector.handle_octets(talk.now);
    }
    assert_eq!(talk.reflector.counters().failures, 0);
    talk.pass(PAGE_SILENCE);
    talk.reflector.handle_timeout(talk.now);
    assert_eq!(talk.reflector.counters().failures, 1, "240 seconds it trickled, then nothing came");
    let mut talk = Talk::begin();
    talk.asks();
    while talk.reflector.counters().failures == 0 {
        talk.pass(seconds(1));
        talk.reflector.handle_octets(talk.now);
        talk.reflector.handle_timeout(talk.now);
    }
    assert_eq!(talk.now - talk.start, PAGE_TIME);
}

#[test]
fn a_server_that_was_not_there_may_be_another_one_and_is_listed() {
    let mut talk = Talk::watching();
    talk.pass(seconds(60));
    talk.fails(Why::Cut);
    assert!(matches!(talk.asks_later().0, Ask::Watch { .. }), "it was there a moment ago");
    talk.fails(Why::Unreachable);
    assert_eq!(talk.asks_later().0, first_page());
}

#[test]
fn one_request_without_an_answer_is_not_yet_another_server() {
    let mut talk = Talk::watching();
    for _ in 0..3 {
        talk.fails(Why::Cut);
        assert!(matches!(talk.asks_later().0, Ask::Watch { .. }), "it was cut after an answer");
        talk.fails(Why::Cut);
        assert!(matches!(talk.asks_later().0, Ask::Watch { .. }), "one went without an answer");
        talk.reflector.handle_head(talk.now);
    }
    talk.fails(Why::Cut);
    talk.asks_later();
    talk.fails(Why::Cut);
    talk.asks_later();
    talk.fails(Why::Cut);
    assert_eq!(talk.asks_later().0, first_page());
}

#[test]
fn a_version_that_the_server_cannot_use_is_given_up() {
    let mut talk = Talk::watching();
    talk.fails(Why::Wrong);
    assert_eq!(talk.asks_later().0, first_page());
    let mut talk = Talk::watching();
    for refused in 1..=REFUSED_WATCHES {
        talk.fails(Why::Busy);
        let ask = talk.asks_later().0;
        assert_eq!(ask == first_page(), refused == REFUSED_WATCHES, "{refused}: {ask:?}");
    }
}

#[test]
fn a_watch_that_ends_at_once_costs_a_pause() {
    let mut talk = Talk::watching();
    let mut watches = 0;
    while talk.now < talk.start + seconds(600) {
        talk.reflector.handle_end(talk.now);
        assert!(matches!(talk.asks_later().0, Ask::Watch { .. }));
        talk.reflector.handle_head(talk.now);
        watches += 1;
    }
    assert!(watches < 120, "{watches} watches in ten minutes");
}

#[test]
fn it_is_known_since_when_the_server_is_away_and_why() {
    let mut talk = Talk::begin();
    assert_eq!(*talk.reflector.contact(), Contact::None);
    talk.asks();
    let lost = talk.now;
    talk.fails(Why::Unreachable);
    talk.asks_later();
    talk.fails(Why::Busy);
    assert_eq!(*talk.reflector.contact(), Contact::Lost(lost, failure(Why::Busy)));
    talk.asks_later();
    talk.reflector.handle_head(talk.now);
    assert!(matches!(talk.reflector.contact(), Contact::Lost(..)), "the head of a list is no list");
    talk.reflector.handle_page("v".into(), None, talk.now);
    assert_eq!(*talk.reflector.contact(), Contact::Well(talk.now));
}

#[test]
fn a_refusal_is_believed_when_it_is_repeated_whatever_was_before() {
    let refused = Why::Refused(Refusal::Forbidden);
    let mut talk = Talk::begin();
    // The server was away for long.
    for _ in 0..10 {
        talk.asks_later();
        talk.fails(Why::Unreachable);
    }
    let (mut first, mut times) = (None, 0);
    while !talk.reflector.is_refused() {
        talk.asks_later();
        let since = *first.get_or_insert(talk.now);
        talk.fails(refused);
        times += 1;
        assert!(talk.now < since + SURE * 2, "it is asked again soon");
    }
    assert!(times >= 2 && talk.now >= first.unwrap() + SURE);
    talk.asks_later();
    talk.fails(Why::Busy);
    assert!(!talk.reflector.is_refused());
    // From then on it is asked seldom.
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        longest = longest.max(talk.asks_later().1);
        talk.fails(refused);
    }
    assert!(longest > SURE, "{longest:?}");
}

#[test]
fn who_waits_for_a_server_that_another_kind_has_found_asks_at_once() {
    let mut talk = Talk::begin();
    for why in [Why::Unreachable, Why::Busy] {
        for _ in 0..10 {
            talk.asks_later();
            talk.fails(why);
        }
        talk.reflector.hurry(talk.now);
        assert_eq!(talk.reflector.poll_ask(talk.now).is_some(), why == Why::Unreachable, "{why:?}");
        talk.fails(why);
    }
}
