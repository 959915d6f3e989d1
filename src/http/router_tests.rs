//! Tests of the router: which pattern wins, and what is refused as one.

use proptest::prelude::*;

use super::*;

fn router(patterns: &[&'static str]) -> Router<&'static str> {
    let mut router = Router::new();
    for pattern in patterns {
        router.insert(pattern, *pattern).unwrap();
    }
    router
}

/// The pattern a path takes and its parameters as `name=value`.
fn find(router: &Router<&'static str>, path: &str) -> Option<(&'static str, Vec<String>)> {
    let found = router.find(path)?;
    assert_eq!(*found.value, found.pattern);
    Some((found.value, found.params.iter().map(|(name, value)| format!("{name}={value}")).collect()))
}

#[test]
fn the_most_specific_pattern_wins_with_backtracking() {
    let router = router(&["/a/b/c", "/a/:x", "/a/*", "/a/:x/:y/d", "/"]);
    type Found = Option<(&'static str, &'static [&'static str])>;
    let rows: &[(&str, Found)] = &[
        ("/", Some(("/", &[]))),
        ("/a/b/c", Some(("/a/b/c", &[]))),
        ("/a/b", Some(("/a/:x", &["x=b"]))),
        ("/a/b/d", Some(("/a/*", &["*=b/d"]))),
        ("/a/b/c/d", Some(("/a/:x/:y/d", &["x=b", "y=c"]))),
        ("/a/b/c/e", Some(("/a/*", &["*=b/c/e"]))),
        ("/a/", Some(("/a/*", &["*="]))),
        ("/a/b/", Some(("/a/*", &["*=b/"]))),
        ("/a", None),
        ("/b", None),
        ("", None),
        ("*", None),
        ("a/b", None),
    ];
    for &(path, expected) in rows {
        let expected =
            expected.map(|(pattern, params)| (pattern, params.iter().map(ToString::to_string).collect()));
        assert_eq!(find(&router, path), expected, "{path}");
    }
}

#[test]
fn segments_are_split_first_and_decoded_once() {
    let router = router(&["/chat/:room", "/files/*", "/caf\u{e9}"]);
    assert_eq!(find(&router, "/ch%61t/a%2Fb%20%252e"), Some(("/chat/:room", vec!["room=a/b %2e".into()])));
    assert_eq!(find(&router, "/files/..%2fx/%2e%2e/"), Some(("/files/*", vec!["*=../x/../".into()])));
    assert_eq!(find(&router, "/caf%C3%A9"), Some(("/caf\u{e9}", vec![])));
    assert_eq!(find(&router, "/chat/%zz"), Some(("/chat/:room", vec!["room=%zz".into()])));
    assert_eq!(find(&router, "/chat%2fblue"), None);
}

#[test]
fn a_non_utf8_parameter_matches_nothing() {
    let router = router(&["/chat/:room", "/files/*"]);
    assert_eq!(find(&router, "/chat/%ff"), None);
    assert_eq!(find(&router, "/files/a/%ff"), None);
    assert_eq!(find(&router, "/chat/"), None);
}

#[test]
fn each_invalid_pattern_is_refused_with_its_error() {
    let mut router = router(&["/a/:x", "/a/*", "/b"]);
    let deep = "/a".repeat(MAX_SEGMENTS + 1);
    let pattern = |text: &str| text.to_owned();
    let other = |route: &str, segment: &str, instead: &str| RouteError::OtherSyntax {
        pattern: pattern(route),
        segment: pattern(segment),
        instead: pattern(instead),
    };
    let rows = [
        ("", RouteError::NotRooted { pattern: pattern("") }),
        ("chat", RouteError::NotRooted { pattern: pattern("chat") }),
        ("/a?b", RouteError::BadCharacter { pattern: pattern("/a?b"), found: '?' }),
        ("/a%20b", RouteError::BadCharacter { pattern: pattern("/a%20b"), found: '%' }),
        ("/a/*/b", RouteError::StrayStar { pattern: pattern("/a/*/b") }),
        ("/a*", RouteError::StrayStar { pattern: pattern("/a*") }),
        ("/a/{x}", other("/a/{x}", "{x}", ":x")),
        ("/a/{id:[0-9]+}/b", other("/a/{id:[0-9]+}/b", "{id:[0-9]+}", ":id")),
        ("/a/<int:id>", other("/a/<int:id>", "<int:id>", ":id")),
        ("/files/{*rest}", other("/files/{*rest}", "{*rest}", "*")),
        ("/files/{rest...}", other("/files/{rest...}", "{rest...}", "*")),
        ("/a/{}", other("/a/{}", "{}", ":name")),
        ("/a/x{y}", other("/a/x{y}", "x{y}", ":name")),
        ("/files/*rest", RouteError::StrayStar { pattern: pattern("/files/*rest") }),
        ("/a/:id.png", RouteError::BadName { pattern: pattern("/a/:id.png"), name: pattern("id.png") }),
        ("/a/:id(\\d+)", RouteError::BadName { pattern: pattern("/a/:id(\\d+)"), name: pattern("id(\\d+)") }),
        ("/:", RouteError::Nameless { pattern: pattern("/:") }),
        ("/:x/:x", RouteError::RepeatedName { pattern: pattern("/:x/:x"), name: pattern("x") }),
        ("/a/:y", RouteError::Taken { pattern: pattern("/a/:y"), by: pattern("/a/:x") }),
        ("/a/*", RouteError::Taken { pattern: pattern("/a/*"), by: pattern("/a/*") }),
        ("/b", RouteError::Taken { pattern: pattern("/b"), by: pattern("/b") }),
        (&deep, RouteError::TooLong { pattern: deep.clone(), limit: MAX_SEGMENTS }),
    ];
    for (bad, expected) in rows {
        assert_eq!(router.insert(bad, "new"), Err(expected), "{bad}");
    }
    assert_eq!(find(&router, "/a/1"), Some(("/a/:x", vec!["x=1".into()])));
}

/// The reference implementation: tries every pattern, and of those that match takes the one whose kinds of segments
/// come first.
fn naive<'p>(patterns: &[&'p str], path: &str) -> Option<(&'p str, Vec<String>)> {
    let path: Vec<_> = path.strip_prefix('/')?.split('/').collect();
    let mut matches = Vec::new();
    'patterns: for &pattern in patterns {
        let segments: Vec<_> = pattern[1..].split('/').collect();
        let (mut kinds, mut params) = (Vec::new(), Vec::new());
        for (at, segment) in segments.iter().enumerate() {
            let Some(&found) = path.get(at) else { continue 'patterns };
            if *segment == "*" {
                kinds.push(2);
                params.push(format!("*={}", path[at..].join("/")));
                matches.push((kinds, pattern, params));
                continue 'patterns;
            } else if let Some(name) = segment.strip_prefix(':') {
                if found.is_empty() {
                    continue 'patterns;
                }
                kinds.push(1);
                params.push(format!("{name}={found}"));
            } else if *segment == found {
                kinds.push(0);
            } else {
                continue 'patterns;
            }
        }
        if path.len() == segments.len() {
            matches.push((kinds, pattern, params));
        }
    }
    matches.into_iter().min().map(|(_, pattern, params)| (pattern, params))
}

proptest! {
    #[test]
    fn the_router_agrees_with_trying_all_patterns(
        patterns in prop::collection::vec("(/(a|b||:x)){0,2}/(a|b||:y|\\*)", 1..12),
        paths in prop::collection::vec("(/(a|b|c|)){1,5}", 12),
    ) {
        let mut router = Router::new();
        let mut inserted = Vec::new();
        for pattern in &patterns {
            if router.insert(pattern, pattern.as_str()).is_ok() {
                inserted.push(pattern.as_str());
            }
        }
        for path in &paths {
            let found = router.find(path).map(|found| {
                let params = found.params.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
                (*found.value, params)
            });
            prop_assert_eq!(found, naive(&inserted, path), "{} among {:?}", path, inserted);
        }
    }

    #[test]
    fn arbitrary_patterns_and_paths_never_panic_the_router(pattern in "\\PC{0,20}", path in "\\PC{0,40}") {
        let mut router = Router::new();
        let _ = router.insert(&pattern, ());
        let _ = router.find(&path);
    }
}
