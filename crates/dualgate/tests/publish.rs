//! Providers over HTTPS, as a process asks them: who is believed.

mod support;

use std::process::Command;

use support::{Authority, Home, Node, eventually, gated};

/// What `dualgate dns diff` says on standard error, with these authorities.
fn diff(home: &Home, authorities: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
    command.args(["dns", "diff", "--site"]).arg(home.directory.join("publish.yaml"));
    command.env("SSL_CERT_FILE", home.directory.join(authorities)).env_remove("SSL_CERT_DIR");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_provider_over_https_is_believed_by_the_systems_authorities_alone() {
    let (home, authority) = (Home::new(), Authority::new());
    home.directory.write("ours.pem", &authority.pem());
    home.directory.write("others.pem", &Authority::new().pem());
    home.directory.write("none.pem", "");
    // Whatever answers has a certificate: here it is a gate, whose pod is away.
    let manifest = gated("web", &[], "internal", "  tls: [{secretName: web}]\n");
    home.manifest("web", &manifest.replace("web.example.org", "localhost"));
    home.manifest("secret", &authority.issue(&["localhost"]).secret("web"));
    let port = home.websecure[0].port();
    let dns = format!(
        "dns:\n  forward: [127.0.0.1]\n  providers: {{hook: {{type: webhook, url: 'https://localhost:{port}/api'}}}}\n  \
         zones: [{{name: example.org, publish: 'provider:hook'}}]\n"
    );
    home.directory.write("publish.yaml", &home.site(&dns));
    let _node = Node::serve(&home);
    let asked = format!("hook: read zone `example.org`: GET https://localhost:{port}/api/: ");
    let said = eventually("the gate answers", || {
        let said = diff(&home, "ours.pem");
        if said.contains("503 Service Unavailable") { Ok(said) } else { Err(said) }
    });
    assert!(said.contains(&asked), "{said}");
    for (authorities, expected) in [
        ("others.pem", &*format!("{asked}TLS: invalid peer certificate: ")),
        ("none.pem", "hook: TLS: the system has no authorities"),
    ] {
        let said = diff(&home, authorities);
        assert!(said.contains(expected), "{said}");
    }
}
