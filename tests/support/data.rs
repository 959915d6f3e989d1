//! What a message's `data` may be, for whoever takes it: the same over WebSocket and over HTTP.

fn nested(levels: usize, open: &str, close: &str) -> String {
    format!("{}{}", open.repeat(levels), close.repeat(levels))
}

/// Delivered as they are, byte for byte.
pub(crate) fn taken() -> Vec<String> {
    let long = "9".repeat(300);
    let mut taken: Vec<String> = [
        "null",
        "true",
        "\"\"",
        "-0",
        "1.50",
        "1e308",
        "-1E-3",
        "1e-400",
        "12345678901234567890123",
        &long,
        "[]",
        "{}",
        r#"{ "b" : [1,  2],"a":"\u00e9" }"#,
        r#"{"a":1,"a":2}"#,
        r#"{"":{"":[]}}"#,
        r#""\ud83d\udd14""#,
        r#""\u0000\u001f\/\b""#,
        r#""\ufffe\uffff""#,
        "\"größte 🔔 \u{2028}\u{7f}\"",
    ]
    .map(str::to_owned)
    .into();
    taken.extend([nested(126, "[", "]"), nested(125, r#"{"a":"#, "}").replace(":}", ":{}}")]);
    taken.push(format!("{}{{}}{}", r#"[{"a":"#.repeat(62), "}]".repeat(62)));
    // Side by side is not one in another.
    taken.push(format!("[{}]", vec!["[[]]"; 500].join(",")));
    taken
}

/// Refused with the code `json`.
pub(crate) fn refused() -> Vec<String> {
    let long = "9".repeat(400);
    let mut refused: Vec<String> = [
        "",
        "1 2",
        "nil",
        "NaN",
        "-Infinity",
        "01",
        "+1",
        "1.",
        ".5",
        "'a'",
        "[1,]",
        r#"{"a":1,}"#,
        "{a:1}",
        "[",
        "/**/1",
        "\"\t\"",
        r#""\x41""#,
        "1e400",
        "-1e400",
        r#"[{"a":[1e309]}]"#,
        &long,
        r#""\ud800""#,
        r#""\udd14""#,
        r#""\ud83d\u0041""#,
        r#""\udd14\ud83d""#,
        r#"[["cut \ud83d"]]"#,
        r#"{"\ud83d":1}"#,
    ]
    .map(str::to_owned)
    .into();
    refused.extend([127, 128, 1000, 10_000].map(|levels| nested(levels, "[", "]")));
    refused.push(nested(126, r#"{"a":"#, "}").replace(":}", ":{}}"));
    refused.push(format!("[1,{}]", nested(126, "[", "]")));
    refused.push("[".repeat(60_000));
    refused
}
