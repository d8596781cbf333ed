//! The file store: bytes under a key. Always written before the row of `files` that names the key, so that a row always
//! has its object.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path};

use crate::config::WorkerFiles;

/// The store of PDFs and uploads.
#[derive(Clone, Debug)]
pub struct FileStore {
    store: Arc<dyn ObjectStore>,
}

/// A file store that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another scheme than `file:`.
    #[error("files.url: `{0}:` is not supported yet; use a folder, such as file:///var/lib/registrar/files")]
    Scheme(String),
    /// The folder cannot be made or entered.
    #[error("files.url: the folder cannot be used: {0}")]
    Folder(#[from] std::io::Error),
    /// The folder is not usable as a store.
    #[error("files.url: {0}")]
    Store(#[from] object_store::Error),
}

impl FileStore {
    /// Opens the store, and makes its folder where there is none.
    ///
    /// # Errors
    /// [`OpenError`], naming the setting.
    pub fn open(files: &WorkerFiles) -> Result<Self, OpenError> {
        let url = &files.url;
        let scheme = || OpenError::Scheme(url.scheme().to_owned());
        if url.scheme() != "file" {
            return Err(scheme());
        }
        let folder = url.to_file_path().map_err(|()| scheme())?;
        std::fs::create_dir_all(&folder)?;
        Ok(Self { store: Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true)) })
    }

    /// Writes an object, whole or not at all; one that is there is replaced.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn put(&self, key: &str, content: Bytes) -> object_store::Result<()> {
        self.store.put(&Path::parse(key)?, content.into()).await.map(drop)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// The errors of the store, `NotFound` among them.
    pub async fn get(&self, key: &str) -> object_store::Result<Bytes> {
        self.store.get(&Path::parse(key)?).await?.bytes().await
    }
}
