//! The pages: `GET /ota`, which updates the group from a browser, and `GET /setup`, which tells a
//! board its networks.
//!
//! Each is one file without a single request to anywhere else, since there may be no internet where
//! the device is. It is a client of the API like any other: it may do what the API lets it do.
//!
//! The policy lets the browser run this page's own script and style, which it knows by their
//! hashes, and nothing that somebody smuggles into it.

use alloc::format;
use alloc::string::String;

use base64ct::{Base64, Encoding};
use picoserve::ResponseSent;
use picoserve::io::Read;
use picoserve::response::{Connection, IntoResponse, Response, ResponseWriter, StatusCode};
use sha2::{Digest as _, Sha256};

/// A page, as it is served: made of the source that people change by `cargo xtask page`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page(&'static str);

/// `page/source.html`.
pub(super) const UPDATE: Page = Page(include_str!("page/ota.html"));
/// `page/setup-source.html`.
pub(super) const SETUP: Page = Page(include_str!("page/setup.html"));

impl Page {
    /// Sends it.
    pub(super) async fn send<R: Read, W: ResponseWriter<Error = R::Error>>(
        self,
        connection: Connection<'_, R>,
        writer: W,
    ) -> Result<ResponseSent, W::Error> {
        let policy = self.policy();
        Response::new(StatusCode::OK, self.0)
            .with_content_type("text/html; charset=utf-8")
            .with_header("Cache-Control", "no-store")
            .with_header("Content-Security-Policy", policy.as_str())
            .with_header("X-Content-Type-Options", "nosniff")
            .with_header("Referrer-Policy", "no-referrer")
            .write_to(connection, writer)
            .await
    }

    /// What the browser may do with this page. Computed, so that it always fits: it costs a chip
    /// some milliseconds each time the page is loaded.
    fn policy(self) -> String {
        format!(
            "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            self.source_of("script"),
            self.source_of("style"),
        )
    }

    /// The one inline element of this name, as a policy names it.
    fn source_of(self, element: &str) -> String {
        let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
        let rest = self.0.split_once(begin.as_str()).map_or("", |(_, rest)| rest);
        let text = rest.split_once(end.as_str()).map_or("", |(text, _)| text);
        let mut buffer = [0; HASH_TEXT_BYTES];
        let hash = Sha256::digest(text.as_bytes());
        format!("'sha256-{}'", Base64::encode(&hash, &mut buffer).unwrap_or_default())
    }
}

/// 32 bytes in base64.
const HASH_TEXT_BYTES: usize = 44;

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = include_str!("page/source.html");
    /// Each page with its source, and how large it may be: a chip's slot has better uses for more.
    const PAGES: &[(Page, &str, usize)] =
        &[(UPDATE, SOURCE, 42_000), (SETUP, include_str!("page/setup-source.html"), 9_000)];

    #[test]
    fn the_pages_are_small() {
        for (page, _, bytes_max) in PAGES {
            assert!(page.0.len() < *bytes_max, "{} bytes", page.0.len());
        }
    }

    #[test]
    fn each_page_is_made_of_its_source() {
        for (page, source, _) in PAGES {
            let digest = Sha256::digest(source.as_bytes());
            let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            let end = format!("<!-- {digest} -->");
            assert!(page.0.trim_end().ends_with(&end), "make it anew: cargo xtask page");
        }
    }

    /// The page has no room for a table of all words; what it has is what everybody else says.
    #[test]
    fn what_the_page_advises_is_what_the_table_of_words_has() {
        use lockstep_proto::words::{ABORTED, CAUSES, REFUSED};
        let sentence = |text: &str| {
            let (first, rest) = text.split_at(1);
            format!("'{}{rest}.'", first.to_ascii_uppercase())
        };
        for words in CAUSES {
            let advice = sentence(words.hint);
            assert!(SOURCE.contains(&advice), "{}: {advice}", words.code);
            // Whatever has no advice of its own gets that of a bad bundle.
            let is_named = SOURCE.contains(&format!("{}': {advice}", words.code))
                || SOURCE.contains(&format!("'{}': {advice}", words.code));
            assert!(is_named || words.hint == REFUSED.hint, "{}", words.code);
        }
        assert!(SOURCE.contains(&format!("'aborted': {}", sentence(ABORTED.hint))));
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        for (_, source, _) in PAGES {
            for address in ["http:", "https:", "//cdn", "@import", "url("] {
                assert!(!source.contains(address), "`{address}`");
            }
        }
    }

    #[test]
    fn a_page_has_one_script_and_one_style() {
        for (page, ..) in PAGES {
            for element in ["<script", "<style"] {
                assert_eq!(page.0.matches(element).count(), 1, "{element}");
            }
            assert!(!page.0.contains(" style="), "the policy lets no element bring its own style");
        }
    }

    #[test]
    fn the_policy_names_the_script_by_its_hash() {
        for (page, ..) in PAGES {
            let policy = page.policy();
            assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
        }
    }
}
