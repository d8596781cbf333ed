//! Typst: an invoice's data and a template become a PDF. Fonts and template are read once; nothing of the machine (no
//! clock, no network, no file outside the template's folder) can be seen from a template, so the same invoice is always
//! the same bytes.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use typst::{
    Library, LibraryExt, World,
    diag::{FileError, FileResult, SourceDiagnostic},
    foundations::{Bytes, Datetime, Duration, Smart},
    syntax::{FileId, RootedPath, Source, VirtualPath, VirtualRoot},
    text::{Font, FontBook},
    utils::LazyHash,
};
use typst_pdf::PdfOptions;

const TEMPLATE: &str = include_str!("../../templates/invoice/invoice.typ");
const TEMPLATE_NAME: &str = "invoice.typ";
const DATA_NAME: &str = "invoice.json";
/// Renderings between two evictions of Typst's cache, which drop what none of them used; what all invoices have in common
/// stays cached. An eviction walks through the whole cache, hence not after each rendering.
const EVICTION_RENDERINGS: usize = 16;

/// The extensions of font files.
const FONT_ENDINGS: [&str; 3] = ["otf", "ttc", "ttf"];

/// The renderings of this process, whose cache is shared.
static RENDERINGS: AtomicUsize = AtomicUsize::new(0);
static LIBRARY: LazyLock<LazyHash<Library>> = LazyLock::new(|| LazyHash::new(<Library as LibraryExt>::default()));

/// Renders invoices with one template.
#[derive(Clone, Debug)]
pub struct InvoicePdf {
    template: Source,
    folder: Option<PathBuf>,
    fonts: Arc<Fonts>,
}

#[derive(Debug)]
struct Fonts {
    fonts: Vec<Font>,
    book: LazyHash<FontBook>,
}

/// An invoice that could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The template, or what it makes of this invoice, is wrong.
    #[error("the invoice template fails: {0}")]
    Template(String),
}

impl InvoicePdf {
    /// Reads the template and the further fonts of this folder, or the built-in ones. A letter that is missing in the font
    /// that the template asks for is taken from another one: so a font in the folder is enough for names in its script.
    ///
    /// # Errors
    /// The folder has no readable `invoice.typ`, or a font that cannot be read.
    pub fn new(folder: Option<PathBuf>) -> std::io::Result<Self> {
        let text = match &folder {
            Some(folder) => std::fs::read_to_string(folder.join(TEMPLATE_NAME)).map_err(|error| {
                let text = format!("institute.templates_dir: {}: {error}", folder.join(TEMPLATE_NAME).display());
                std::io::Error::new(error.kind(), text)
            })?,
            None => TEMPLATE.to_owned(),
        };
        Ok(Self {
            template: Source::new(file_id(TEMPLATE_NAME), text),
            fonts: Arc::new(Fonts::load(folder.as_deref())?),
            folder,
        })
    }

    /// Renders the PDF of an invoice; CPU-bound, some tens of milliseconds.
    ///
    /// # Errors
    /// [`RenderError::Template`] with Typst's own words.
    pub fn render(&self, invoice_id: uuid::Uuid, invoice: &Value) -> Result<Vec<u8>, RenderError> {
        let world = InvoiceWorld { pdf: self, data: Bytes::from_string(invoice.to_string()) };
        let options = PdfOptions { ident: Smart::Custom(invoice_id.to_string()), ..PdfOptions::default() };
        let pdf = typst::compile(&world).output.and_then(|document| typst_pdf::pdf(&document, &options));
        if RENDERINGS.fetch_add(1, Ordering::Relaxed).is_multiple_of(EVICTION_RENDERINGS) {
            typst::comemo::evict(1);
        }
        pdf.map_err(|diagnostics| RenderError::Template(self.explain(&diagnostics)))
    }

    fn explain(&self, diagnostics: &[SourceDiagnostic]) -> String {
        let explain = |diagnostic: &SourceDiagnostic| {
            diagnostic.hints.iter().fold(diagnostic.message.to_string(), |text, hint| format!("{text} ({})", hint.v))
        };
        diagnostics.iter().map(explain).collect::<Vec<_>>().join("; ")
    }
}

impl Fonts {
    fn load(folder: Option<&Path>) -> std::io::Result<Self> {
        let mut fonts: Vec<Font> = typst_assets::fonts().flat_map(|data| Font::iter(Bytes::new(data))).collect();
        let mut paths = Vec::new();
        for entry in folder.map(std::fs::read_dir).transpose()?.into_iter().flatten() {
            paths.push(entry?.path());
        }
        // The same invoice is the same PDF on every machine: not in the folder's own order.
        paths.sort();
        let is_font =
            |path: &&PathBuf| path.extension().is_some_and(|end| FONT_ENDINGS.iter().any(|font| end == *font));
        for path in paths.iter().filter(is_font) {
            fonts.extend(Font::iter(Bytes::new(std::fs::read(path)?)));
        }
        let book = LazyHash::new(FontBook::from_fonts(&fonts));
        Ok(Self { fonts, book })
    }
}

fn file_id(name: &str) -> FileId {
    let path = VirtualPath::new(name).expect("the names of our two files are plain");
    RootedPath::new(VirtualRoot::Project, path).intern()
}

struct InvoiceWorld<'a> {
    pdf: &'a InvoicePdf,
    data: Bytes,
}

impl World for InvoiceWorld<'_> {
    fn library(&self) -> &LazyHash<Library> {
        &LIBRARY
    }

    fn book(&self) -> &LazyHash<FontBook> {
        &self.pdf.fonts.book
    }

    fn main(&self) -> FileId {
        self.pdf.template.id()
    }

    fn source(&self, id: FileId) -> FileResult<Source> {
        if id == self.pdf.template.id() {
            return Ok(self.pdf.template.clone());
        }
        let text = String::from_utf8(self.file(id)?.to_vec()).map_err(|_| FileError::InvalidUtf8)?;
        Ok(Source::new(id, text))
    }

    fn file(&self, id: FileId) -> FileResult<Bytes> {
        if id == file_id(DATA_NAME) {
            return Ok(self.data.clone());
        }
        let name = PathBuf::from(id.get().vpath().get_without_slash());
        let Some(folder) = self.pdf.folder.as_ref().filter(|_| *id.get().root() == VirtualRoot::Project) else {
            return Err(FileError::NotFound(name));
        };
        let path = id.get().vpath().realize(folder).map_err(|_| FileError::AccessDenied)?;
        std::fs::read(path).map(Bytes::new).map_err(|error| FileError::from_io(error, &name))
    }

    fn font(&self, index: usize) -> Option<Font> {
        self.pdf.fonts.fonts.get(index).cloned()
    }

    fn today(&self, _: Option<Duration>) -> Option<Datetime> {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn invoice() -> Value {
        json!({
            "number": "IN-2026-27-00042", "kind": "invoice", "issue_date": "2026-07-14", "currency": "INR",
            "supplier": {
                "name": "Sample Institute", "legal_name": "Sample Institute Pvt. Ltd.", "tax_id": "29ABCDE1234F1Z5",
                "address": ["12 College Road", "Bengaluru 560001", "India"], "tax_label": "GST",
                "bank_details": ["Sample Bank, College Road", "Account 000123456789"],
            },
            "recipient": {
                "name": "Asha #strong[Rao] <\\ $x$> \"'", "email": "asha.rao@example.org", "address": null,
                "country": "IN", "tax_id": null, "request_no": "R-0000000042",
            },
            "lines": [{
                "description": "Rust in Production, July evenings (part payment)", "quantity": "1.00",
                "unit_price": "10000.00", "amount": "10000.00", "tax_rate": "18.00", "tax": "1620.00",
            }],
            "subtotal": "10000.00", "discount": "1000.00", "tax": "1620.00", "rounding": "0.00", "total": "10620.00",
            "payment": { "transaction_id": "UTR-2026-000123", "method": "bank_transfer", "paid_on": "2026-07-13" },
        })
    }

    #[test]
    fn the_same_invoice_is_always_the_same_pdf() {
        let pdf = InvoicePdf::new(None).expect("the built-in template");
        let first = pdf.render(Uuid::nil(), &invoice()).expect("rendered");
        assert!(first.starts_with(b"%PDF-"));
        typst::comemo::evict(0);
        assert_eq!(first, pdf.render(Uuid::nil(), &invoice()).expect("rendered again"));
        if let Some(folder) = std::env::var_os("INVOICE_PDF_TO") {
            std::fs::write(PathBuf::from(folder).join("invoice.pdf"), first).expect("written");
        }
    }

    #[test]
    fn a_folder_s_template_is_used_and_sees_its_folder_only() {
        let folder = std::env::temp_dir().join(format!("registrar-template-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let render = |template: &str| {
            std::fs::write(folder.join(TEMPLATE_NAME), template).expect("a template");
            InvoicePdf::new(Some(folder.clone())).expect("readable").render(Uuid::nil(), &invoice())
        };
        assert!(render("#json(\"invoice.json\").number").expect("a template of one's own").starts_with(b"%PDF-"));
        let built_in = typst_assets::fonts().next().expect("Typst brings fonts");
        std::fs::write(folder.join("own.ttf"), built_in).expect("a font");
        let fonts = |folder| InvoicePdf::new(folder).expect("readable").fonts.fonts.len();
        assert_eq!(fonts(Some(folder.clone())), fonts(None) + 1);
        assert!(render("#read(\"../../etc/hostname\")").is_err());
        assert!(render("#import \"@preview/cetz:0.3.0\"").is_err());
        let error = render("#json(\"invoice.json\").nonsense").expect_err("no such key").to_string();
        assert!(error.contains("nonsense"), "{error}");
        std::fs::remove_dir_all(&folder).expect("removed");
        assert!(InvoicePdf::new(Some(folder)).expect_err("gone").to_string().contains("institute.templates_dir"));
    }
}
