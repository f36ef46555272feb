//! What is worked out once for each of the snapshot's numbered things, at first use.

use std::cell::RefCell;
use std::rc::Rc;

pub(crate) struct Memo<T: ?Sized>(RefCell<Vec<Option<Rc<T>>>>);

impl<T: ?Sized> Default for Memo<T> {
    fn default() -> Self {
        Memo(RefCell::default())
    }
}

impl<T: ?Sized> Memo<T> {
    /// What is known of the thing at `index`, else what `make` says of it. An error is not kept.
    pub fn get<E>(&self, index: u32, make: impl FnOnce() -> Result<Rc<T>, E>) -> Result<Rc<T>, E> {
        let index = index as usize;
        if let Some(Some(known)) = self.0.borrow().get(index) {
            return Ok(Rc::clone(known));
        }
        let made = make()?;
        let mut all = self.0.borrow_mut();
        if all.len() <= index {
            all.resize(index + 1, None);
        }
        if let Some(slot) = all.get_mut(index) {
            *slot = Some(Rc::clone(&made));
        }
        Ok(made)
    }
}
