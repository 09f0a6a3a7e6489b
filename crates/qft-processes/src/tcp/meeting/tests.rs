//! What processes tell each other of where they are.

use super::*;

#[test]
fn who_is_on_the_first_ones_machine_is_found_from_others() {
    let text = "node0\n127.0.0.1:4000 node0\n10.0.0.2:5000 node1\n[::1]:6000 node0\n";
    let master: IpAddr = "10.0.0.1".parse().unwrap();
    let (leader, places) = read_places(text, 4, master).unwrap();
    assert_eq!(leader, "node0");
    let found: Vec<_> = places.iter().map(|place| place.address.to_string()).collect();
    assert_eq!(found, ["10.0.0.1:4000", "10.0.0.2:5000", "10.0.0.1:6000"]);
    for (text, size) in [(text, 3), ("node0", 1), ("node0\nx node1\n", 2), ("n\n1.2.3.4:5\n", 2)] {
        assert_eq!(read_places(text, size, master), None, "{text:?}");
    }
}

#[test]
fn what_is_local_is_not_open_to_the_world() {
    for (host, v6, expected) in [
        ("127.0.0.1", false, "127.0.0.1"),
        ("localhost", true, "::1"),
        ("node1", false, "0.0.0.0"),
        ("10.0.0.1", false, "0.0.0.0"),
        ("fe80::1", true, "::"),
    ] {
        assert_eq!(bound_to(host, v6), expected.parse::<IpAddr>().unwrap(), "{host}");
    }
}
