//! Memory that lives as long as an nginx pool.

use std::ffi::c_void;

use ngx::ffi::{ngx_palloc, ngx_pcalloc, ngx_pnalloc, ngx_pool_cleanup_add, ngx_pool_t, ngx_str_t};

/// A zeroed C struct; `None` when memory is short. `T` must be valid when zeroed, as nginx's structs are.
pub(crate) fn zeroed<T: Copy>(pool: *mut ngx_pool_t) -> Option<&'static mut T> {
    // SAFETY: pool is live; the memory is fresh, zeroed, aligned to NGX_ALIGNMENT (at least 8) and as long-lived as
    // the pool: callers only hand it to nginx objects of the same pool.
    unsafe { ngx_pcalloc(pool, size_of::<T>()).cast::<T>().as_mut() }
}

/// A copy of bytes as an nginx string.
pub(crate) fn string(pool: *mut ngx_pool_t, bytes: &[u8]) -> Option<ngx_str_t> {
    let data = allocate(pool, bytes.len())?;
    // SAFETY: data has bytes.len() bytes, fresh, hence not overlapping.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len()) };
    Some(ngx_str_t {
        len: bytes.len(),
        data,
    })
}

/// Uninitialised bytes.
pub(crate) fn allocate(pool: *mut ngx_pool_t, len: usize) -> Option<*mut u8> {
    // SAFETY: pool is live. A length of 0 is asked for as 1, since nginx may answer 0 with any pointer.
    let data = unsafe { ngx_pnalloc(pool, len.max(1)) }.cast::<u8>();
    (!data.is_null()).then_some(data)
}

unsafe extern "C" fn drop_value<T>(data: *mut c_void) {
    super::guard::guarded("cleanup", (), || {
        // SAFETY: data is the value that `place` put there; nginx runs a cleanup handler once.
        unsafe { std::ptr::drop_in_place(data.cast::<T>()) }
    });
}

/// Moves a value into the pool; it is dropped when the pool is destroyed.
pub(crate) fn place<T>(pool: *mut ngx_pool_t, value: T) -> Option<*mut T> {
    // SAFETY: pool is live; both results are checked before use; palloc aligns to NGX_ALIGNMENT, which is 16 or 8,
    // and values placed here need at most 8 (pointers and u64).
    unsafe {
        const { assert!(align_of::<T>() <= 8) };
        let cleanup = ngx_pool_cleanup_add(pool, 0);
        let data = ngx_palloc(pool, size_of::<T>()).cast::<T>();
        if cleanup.is_null() || data.is_null() {
            return None;
        }
        data.write(value);
        (*cleanup).data = data.cast();
        (*cleanup).handler = Some(drop_value::<T>);
        Some(data)
    }
}

/// Finds a value that was placed in the pool, by its cleanup handler: how a request's context is recovered after nginx
/// has cleared the context table (internal redirects).
pub(crate) fn find<T>(pool: *mut ngx_pool_t) -> *mut T {
    // SAFETY: the pool's cleanups are a null-terminated list.
    unsafe {
        let mut cleanup = (*pool).cleanup;
        while let Some(c) = cleanup.as_ref() {
            if c.handler.is_some_and(|h| {
                std::ptr::fn_addr_eq(h, drop_value::<T> as unsafe extern "C" fn(*mut c_void))
            }) {
                return c.data.cast();
            }
            cleanup = c.next;
        }
    }
    std::ptr::null_mut()
}
