//! What the loaders differ in.

use super::files::Loaded;

/// What a search for a library ended with.
pub(super) enum Search {
    At(Vec<u8>),
    Unusable(Vec<u8>, &'static str),
    Nowhere,
}

/// The rules of one loader.
pub(super) trait Rules {
    /// Libraries that are loaded before those that the program needs, by name; the program runs without them.
    fn preloaded(&self) -> Vec<Vec<u8>>;

    /// The name of a needed library as it is searched for.
    fn expand(&self, by: &Loaded<'_>, name: &[u8]) -> Vec<u8>;

    /// Which of the loaded files a name already means.
    fn known(&self, loaded: &[Loaded<'_>], name: &[u8]) -> Option<usize>;

    /// Looks for a library on behalf of a loaded file.
    fn find(&self, loaded: &[Loaded<'_>], by: usize, name: &[u8]) -> Search;
}
