//! The section of a provider, whose keys depend on its type.

use std::time::Duration;

use dualgate_wire::dns::Name;
use dualgate_wire::dns::tsig::Algorithm;

use super::fields::{Fields, Read as _, Section};
use super::scalars::{DnsAddress, FilePath, HttpUrl, ProviderType, Timeout};
use crate::model::site::{Provider, ProviderAccess, PublishPolicy};
use crate::model::{Code, Host};

/// How often it is looked whether records are as they should be. What changes here is written at once.
const INTERVAL: Duration = Duration::from_secs(300);

impl Section for Provider {
    const DOC: &'static str = "Where zones live that others answer for. dualgate writes the public view there, and touches \
        no record that it did not make. Secrets stand in files of their own, on every home node.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let kind = "How it is spoken to: `rfc2136` is a name server that takes dynamic updates, `webhook` one of external-dns.";
        let kind = f.required("type", kind);
        let zone = f.optional::<Host>("zone", "that of the same name", "The zone there, where ours is a part of one.");
        let policy = "What happens to records that are no longer wanted: `sync` removes them, `upsert-only` keeps names that \
            are gone.";
        let policy = f.or("policy", PublishPolicy::Sync, policy);
        let interval = "How often it is looked whether records are as they should be.";
        let interval = f.or("interval", Timeout(INTERVAL), interval).0;
        let given = Given {
            server: f.optional(
                "server",
                "required for `rfc2136`",
                "The name server, on port 53 unless said otherwise.",
            ),
            key: f.optional("key", "required for `rfc2136`", "The name of the TSIG key."),
            algorithm: f.optional("algorithm", "`hmac-sha256`", "What the TSIG key is for."),
            secret_file: f.optional(
                "secretFile",
                "required for `rfc2136`",
                "A file that holds the TSIG key's secret in base64, and nothing else.",
            ),
            url: f.optional("url", "required for `webhook`; else the provider's own", "Where the API is."),
            token_file: f.optional(
                "tokenFile",
                "required for `ionos` and `cloudflare`",
                "A file that holds the API key (`PREFIX.SECRET` at IONOS) or token, and nothing else.",
            ),
        };
        let kind = kind?;
        for (key, of) in KEYS {
            if f.is_given(key) && !of.contains(&kind) {
                let message = format!("`{key}` means nothing for `type: {}`", kind.show());
                f.mistake(Code::SiteUnknownKey, key, message, "leave it out");
            }
        }
        let access = given.access(f, kind)?;
        Some(Self { access, zone, policy, interval })
    }
}

/// The keys that only some types have.
const KEYS: [(&str, &[ProviderType]); 6] = [
    ("server", &[ProviderType::Rfc2136]),
    ("key", &[ProviderType::Rfc2136]),
    ("algorithm", &[ProviderType::Rfc2136]),
    ("secretFile", &[ProviderType::Rfc2136]),
    ("url", &[ProviderType::Webhook, ProviderType::Ionos, ProviderType::Cloudflare]),
    ("tokenFile", &[ProviderType::Ionos, ProviderType::Cloudflare]),
];

/// What is given of them.
struct Given {
    server: Option<DnsAddress>,
    key: Option<Name>,
    algorithm: Option<Algorithm>,
    secret_file: Option<FilePath>,
    url: Option<HttpUrl>,
    token_file: Option<FilePath>,
}

impl Given {
    fn access(self, f: &mut Fields<'_>, kind: ProviderType) -> Option<ProviderAccess> {
        let url = self.url.map(|url| url.0);
        match kind {
            ProviderType::Rfc2136 => {
                let server = needed(f, kind, "server", self.server, "the address of the name server");
                let key = needed(f, kind, "key", self.key, "the name of the TSIG key");
                let file = "the path of a file with the key's secret";
                let secret_file = needed(f, kind, "secretFile", self.secret_file, file);
                Some(ProviderAccess::Rfc2136 {
                    server: server?.0,
                    key: key?,
                    algorithm: self.algorithm.unwrap_or(Algorithm::HmacSha256),
                    secret_file: secret_file?.0,
                })
            }
            ProviderType::Webhook => {
                Some(ProviderAccess::Webhook { url: needed(f, kind, "url", url, "where the webhook is")? })
            }
            ProviderType::Ionos => {
                let token_file =
                    needed(f, kind, "tokenFile", self.token_file, "the path of a file with the API key")?.0;
                Some(ProviderAccess::Ionos { token_file, url })
            }
            ProviderType::Cloudflare => {
                let token_file = needed(f, kind, "tokenFile", self.token_file, "the path of a file with the token")?.0;
                Some(ProviderAccess::Cloudflare { token_file, url })
            }
        }
    }
}

/// A key that this type must have. What is written and cannot be read was told.
fn needed<T>(f: &mut Fields<'_>, kind: ProviderType, key: &'static str, value: Option<T>, what: &str) -> Option<T> {
    if value.is_none() && !f.is_given(key) {
        let message = format!("`{key}` is missing for `type: {}`", kind.show());
        f.mistake(Code::SiteMissing, "", message, &format!("add `{key}`: {what}"));
    }
    value
}
