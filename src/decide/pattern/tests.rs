//! The rules of the pattern language, one line each.

use proptest::prelude::*;

use super::Pattern;

/// Pattern, messages that match, messages that do not.
#[track_caller]
fn check(pattern: &str, yes: &[&str], no: &[&str]) {
    let parsed = Pattern::parse(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
    for message in yes {
        assert!(parsed.matches(message), "{pattern} must match {message}");
    }
    for message in no {
        assert!(!parsed.matches(message), "{pattern} must not match {message}");
    }
}

#[track_caller]
fn refused(pattern: &str, why: &str) {
    let error = Pattern::parse(pattern).map(|_| ()).expect_err(pattern).to_string();
    assert!(error.contains(why), "{pattern}: {error}");
}

#[test]
fn terms() {
    check("", &["", "anything"], &[]);
    check("  ", &["anything"], &[]);
    check("\" \"", &["anything", "nospace"], &[]);
    check("ERROR", &["[ERROR] x", "ERRORS"], &["error", ""]);
    check("ERROR ARGUMENTS", &["ERROR 400 BAD ARGUMENTS"], &["ERROR", "ARGUMENTS"]);
    check("\"INTERNAL SERVER ERROR\"", &["x INTERNAL SERVER ERROR y"], &["INTERNAL ERROR SERVER"]);
    check("\"say \\\"hi\\\"\"", &["they say \"hi\""], &["they say hi"]);
    check("ERROR -ARGUMENTS", &["ERROR 401"], &["ERROR ARGUMENTS", "fine"]);
    check("-\"two words\"", &["two other words", ""], &["two words"]);
    check("?ERROR ?WARN", &["ERROR", "WARN x"], &["INFO"]);
    check("?ERROR ?WARN INFO", &["INFO only"], &["ERROR"]);
    check("?ERROR -INFO", &["nothing"], &["ERROR INFO"]);
    refused("foo-bar", "Invalid character(s) in term 'foo-bar'");
    refused("\"open", "never closed");
    refused("\"a\"b", "a space is expected");
    refused("\"é", "never closed");
    refused(&"a".repeat(1025), "1024");
}

#[test]
fn regular_expressions() {
    check("%AUTHORIZED%", &["UNAUTHORIZED"], &["authorized"]);
    check("%^4\\d\\d%", &["404 x"], &["x 404"]);
    check("%[a-c]+z% OK", &["OK abz"], &["OK z", "abz"]);
    check("-%\\x41%", &["B"], &["A"]);
    check("{ $.ip = %^10\\.0% }", &[r#"{"ip":"10.0.3.4"}"#], &[r#"{"ip":"110.0.3.4"}"#]);
    refused("%(a)%", "'(' may not stand");
    refused("%é%", "may not stand");
    refused("%a", "never closed");
    refused("%\\bword%", "\\b may not stand");
    refused("%a% %b% %c%", "may hold 2");
    refused("%[%", "no regular expression");
    refused("%\\w{1000}\\w{1000}%", "can be used");
}

#[test]
fn json_strings_numbers_and_states() {
    let event = r#"{"type":"Login","code":400,"ratio":-1.5e2,"ok":true,"no":false,"nil":null,"user":{"name":"Ann Lee","roles":["a","b"]},
        "list":[{"id":1},{"id":2}],"x.y":"dot","ip":"123.123.4.5"}"#;
    let yes = [
        r#"{ $.type = "Login" }"#,
        "{$.type=Login}",
        "{ $.type != \"Logout\" }",
        "{ $.type = \"*\" }",
        "{ $.type = Log* }",
        "{ $.ip = 123.123.* }",
        "{ $.code = 400 }",
        "{ $.code = 4* }",
        "{ $.code >= 400 && $.code <= 4e2 }",
        "{ $.ratio < -149 }",
        "{ $.ratio = -150 }",
        "{ $.ok IS TRUE }",
        "{ $.no IS FALSE }",
        "{ $.nil IS NULL }",
        "{ $.none NOT EXISTS }",
        "{ $.user.name = \"Ann*\" }",
        "{ $.user.roles[1] = b }",
        "{ $.user.roles[*] = a }",
        "{ $.list[*].id = 2 }",
        "{ $.* = Login }",
        "{ $.['x.y'] = dot }",
        "{ $.code = 1 || $.code = 400 && $.ok IS TRUE }",
        "{ ($.code = 1 || $.code = 400) && ($.type = Login) }",
    ];
    for pattern in yes {
        check(pattern, &[event], &["no json", "[]x", "\"Login\""]);
    }
    let no = [
        "{ $.type = login }",
        "{ $.type != Login }",
        "{ $.missing = 1 }",
        "{ $.missing != 1 }",
        "{ $.missing < 1 }",
        "{ $.user = \"*\" }",
        "{ $.user.roles = \"*\" }",
        "{ $.user.roles != a }",
        "{ $.nil NOT EXISTS }",
        "{ $.user NOT EXISTS }",
        "{ $.missing IS NULL }",
        "{ $.type > 1 }",
        "{ ($.code = 400 || $.code = 1) && $.type = x }",
        "{ $.user.roles[2] = a }",
    ];
    for pattern in no {
        check(pattern, &[], &[event]);
    }
}

#[test]
fn json_patterns_that_are_refused() {
    refused("{ $.a = 1", "'}' is expected");
    refused("{ $.a = 1 } x", "nothing may follow");
    refused("{ a = 1 }", "'$' is expected");
    refused("{ $ = 1 }", "names a property");
    refused("{ $.*.b[*] = 1 }", "one wildcard");
    refused("{ $.a EXISTS }", "is no condition");
    refused("{ $.a IS NOT NULL }", "is no condition");
    refused("{ $.a < x }", "numbers only");
    refused("{ $.a }", "an operator is expected");
    refused("{ $.a = }", "a value is expected");
    refused("{ $.a[x] = 1 }", "stands a number");
    refused(&format!("{{ {}$.a = 1{} }}", "(".repeat(40), ")".repeat(40)), "deeper");
}

#[test]
fn space_delimited() {
    let event = r#"127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534"#;
    let yes = [
        "[ip, server, username, timestamp, request, status_code, bytes > 1000]",
        "[ip, server, username, timestamp, request =*index.html*, status_code = 4*, bytes]",
        "[ip=127.0.0.1, ..., bytes]",
        "[..., status_code=404 || status_code=410, bytes]",
        "[ip, ..., request = \"GET /index.html HTTP/1.0\", status_code, bytes]",
        "[ip, server != Test && server != Dev, ...]",
        "[a, b, c, timestamp = 10/Oct*, ...]",
        "[..., status = %^4%, bytes]",
        "[ip, ..., (code = 404 || code = 410) && code != 400, bytes >= 1.534e3]",
        "[,,,,,,]",
    ];
    for pattern in yes {
        check(pattern, &[event], &["one", ""]);
    }
    let no = ["[a, b, c]", "[ip, ..., bytes < 1000]", "[a,b,c,d,e,f,g,h]", "[a, ..., b = 1533]", "[server = prod, ...]"];
    for pattern in no {
        check(pattern, &[], &[event]);
    }
    check("[w1=ERROR, w2]", &["ERROR x"], &["ERROR", "ERROR x y", "WARN x"]);
    check("[...]", &["", "a b"], &[]);
    refused("[a = 1 && b = 2]", "name one field");
    refused("[..., a, ...]", "may stand once");
    refused("[a, b", "',' is expected");
    refused("[a b]", "an operator is expected");
    refused("[a] b", "nothing may follow");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(pattern in "[\\[{]?[ -~é]{0,40}", message in "\\PC{0,60}") {
        if let Ok(parsed) = Pattern::parse(&pattern) {
            parsed.matches(&message);
        }
    }

    #[test]
    fn a_quoted_phrase_is_a_search(phrase in "[a-z]{1,3}", message in "[a-z ]{0,20}") {
        let parsed = Pattern::parse(&format!("\"{phrase}\"")).unwrap();
        prop_assert_eq!(parsed.matches(&message), message.contains(&phrase));
    }
}
