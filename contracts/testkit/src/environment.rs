//! The settings of the services that tests use, as `deploy/local/env` prints them. Read from the environment here and
//! nowhere else in the testkit.

use url::Url;

/// A setting.
///
/// # Panics
/// Where it is missing, with instructions.
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `make test`, or eval \"$(deploy/local/env)\" first (with the services up)")
    })
}

/// A setting that is an address.
///
/// # Panics
/// Where it is missing or no URL.
pub fn url(name: &str) -> Url {
    let text = setting(name);
    Url::parse(&text).unwrap_or_else(|error| panic!("{name} is not a URL: {error}"))
}

/// The same server, credentials and parameters, with another database or vhost.
pub(crate) fn with_path(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(path);
    url
}
