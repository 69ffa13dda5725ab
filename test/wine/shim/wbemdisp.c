/*
 * Automation objects that live in the emulated Hyper-V host. A proxy here is a number there: the names of its members, calls of them, and the items of an
 * enumeration are asked of the host (agent/hyperv/emulator/shim/wmi.go). Nothing of WMI is known here.
 *
 * Functions of the service; the first argument of each is an array of objects that were released since the last call:
 *     create(CLSID) object                        a new object of a class
 *     query(object, IID)                          whether the object has an interface
 *     names(object, name) DISPID, bool            the id of a member; true when it is that of all objects of the kind
 *     invoke(object, DISPID, flags, arguments...) result, or for DISP_E_EXCEPTION its code and description
 *     next(object, count) items...                of an enumeration; less than count at its end. An item is an object, or an array of an object
 *                                                 and of members of it that never change: a DISPID and a value each, which saves calls
 *     release()
 * The upper 16 bits of an object's number are its kind.
 */
#define COBJMACROS
#define CINTERFACE
#define RPC_SERVICE "wmi"
#include "rpc.h"
#include <ole2.h>
#include <oleauto.h>
#include <stddef.h>

#define UNAVAILABLE HRESULT_FROM_WIN32(RPC_UNAVAILABLE)
#define BATCH 16
#define CONSTANTS 4

typedef struct {
    IDispatch dispatch;
    IEnumVARIANT items;
    LONG references;
    UINT64 id;
    VARIANT fetched[BATCH]; /* items that the host gave before they were asked for: at .. count */
    ULONG at, count;
    BOOL ended;
    struct { DISPID id; VARIANT value; } constants[CONSTANTS];
    int constant_count;
} proxy;

static IDispatchVtbl dispatch_methods;
static IEnumVARIANTVtbl items_methods;
static LONG live;

/* The ids that are the same for all objects of a kind, as long as the host lives. */
static SRWLOCK names_lock = SRWLOCK_INIT;
static struct { WORD kind; WCHAR name[64]; DISPID id; } names[256];
static int names_count;

static void forget_names(void)
{
    AcquireSRWLockExclusive(&names_lock);
    names_count = 0;
    ReleaseSRWLockExclusive(&names_lock);
}

/* The objects that were released since the last call. */
static SRWLOCK released_lock = SRWLOCK_INIT;
static UINT64 released[256];
static int released_count;

static HRESULT call(const char *function, rpc_buffer *arguments, rpc_buffer *out)
{
    rpc_buffer in = {0};
    size_t list = rpc_begin(&in, RPC_U8);
    unsigned char *p;
    DWORD status;
    AcquireSRWLockExclusive(&released_lock);
    while (released_count) rpc_put_u64(&in, released[--released_count]);
    ReleaseSRWLockExclusive(&released_lock);
    rpc_end(&in, list);
    if (arguments->size && (p = rpc_grow(&in, arguments->size))) memcpy(p, arguments->data, arguments->size);
    in.bad |= arguments->bad;
    status = rpc_call(function, &in, out);
    rpc_free(&in);
    if (status != RPC_UNAVAILABLE) return (HRESULT)status;
    forget_names();
    return UNAVAILABLE;
}

/* Tells the host at once when nothing is left, so that what a process forgot to release can be told from what it had no time to. */
static void give_back(UINT64 id)
{
    rpc_buffer in = {0}, out = {0};
    BOOL tell = InterlockedDecrement(&live) == 0;
    AcquireSRWLockExclusive(&released_lock);
    if (released_count < (int)(sizeof released / sizeof *released)) released[released_count++] = id;
    tell |= released_count > 64;
    ReleaseSRWLockExclusive(&released_lock);
    if (tell) call("release", &in, &out);
    rpc_free(&out);
}

static proxy *new_proxy(UINT64 id)
{
    proxy *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->dispatch.lpVtbl = &dispatch_methods;
    p->items.lpVtbl = &items_methods;
    p->references = 1;
    p->id = id;
    InterlockedIncrement(&live);
    return p;
}

/* Values */

static BOOL put_value(rpc_buffer *b, VARIANT *v);

static BOOL put_array(rpc_buffer *b, VARIANT *v)
{
    SAFEARRAY *array = V_ARRAY(v);
    VARTYPE type = V_VT(v) & VT_TYPEMASK;
    LONG low, high, i;
    size_t begin = rpc_begin(b, type == VT_UI1 ? VT_VARIANT : type);
    BOOL whole = array && SafeArrayGetDim(array) == 1 && SafeArrayGetLBound(array, 1, &low) == S_OK && SafeArrayGetUBound(array, 1, &high) == S_OK;
    for (i = low; whole && i <= high; i++) {
        VARIANT item;
        VariantInit(&item);
        if (type != VT_VARIANT) V_VT(&item) = type;
        whole = SafeArrayGetElement(array, &i, type == VT_VARIANT ? (void *)&item : (void *)&V_I8(&item)) == S_OK && put_value(b, &item);
        VariantClear(&item);
    }
    rpc_end(b, begin);
    return whole;
}

static BOOL put_value(rpc_buffer *b, VARIANT *v)
{
    if (V_VT(v) == (VT_BYREF | VT_VARIANT)) v = V_VARIANTREF(v);
    if (V_VT(v) & VT_ARRAY) return !V_ISBYREF(v) && put_array(b, v);
    switch (V_VT(v)) {
    case VT_EMPTY: case VT_ERROR: rpc_put(b, RPC_EMPTY, NULL, 0); return TRUE; /* VT_ERROR is an optional argument that was left out */
    case VT_NULL: rpc_put(b, RPC_NULL, NULL, 0); return TRUE;
    case VT_BOOL: rpc_put_bool(b, V_BOOL(v)); return TRUE;
    case VT_BSTR: rpc_put(b, RPC_TEXT, V_BSTR(v), SysStringByteLen(V_BSTR(v))); return TRUE;
    case VT_I1: case VT_UI1: rpc_put(b, V_VT(v), &V_UI1(v), 1); return TRUE;
    case VT_I2: case VT_UI2: rpc_put(b, V_VT(v), &V_UI2(v), 2); return TRUE;
    case VT_I4: case VT_UI4: case VT_R4: rpc_put(b, V_VT(v), &V_UI4(v), 4); return TRUE;
    case VT_I8: case VT_UI8: case VT_R8: rpc_put(b, V_VT(v), &V_UI8(v), 8); return TRUE;
    case VT_INT: rpc_put(b, RPC_I4, &V_INT(v), 4); return TRUE;
    case VT_UINT: rpc_put(b, RPC_U4, &V_UINT(v), 4); return TRUE;
    case VT_DISPATCH:
        if (V_DISPATCH(v) && V_DISPATCH(v)->lpVtbl != &dispatch_methods) return FALSE;
        rpc_put_object(b, V_DISPATCH(v) ? ((proxy *)V_DISPATCH(v))->id : 0);
        return TRUE;
    }
    return FALSE;
}

static BOOL take_value(const rpc_value *in, VARIANT *out);

static BOOL take_array(const rpc_value *in, VARIANT *out)
{
    rpc_buffer count = rpc_items(in), items = rpc_items(in);
    VARTYPE type = in->type & ~RPC_ARRAY;
    rpc_value item;
    SAFEARRAY *array;
    ULONG n = 0;
    LONG i;
    while (rpc_take(&count, &item)) n++;
    if (!(array = SafeArrayCreateVector(type, 0, n))) return FALSE;
    V_VT(out) = VT_ARRAY | type;
    V_ARRAY(out) = array;
    for (i = 0; rpc_take(&items, &item); i++) {
        VARIANT value;
        BOOL whole = take_value(&item, &value);
        void *data = type == VT_VARIANT ? (void *)&value : type == VT_BSTR || type == VT_DISPATCH ? V_BYREF(&value) : (void *)&V_I8(&value);
        whole = whole && SafeArrayPutElement(array, &i, data) == S_OK;
        VariantClear(&value);
        if (!whole) return FALSE;
    }
    return TRUE;
}

/* Makes a variant of a value. What was made of it is the caller's to clear, even when it is not whole. */
static BOOL take_value(const rpc_value *in, VARIANT *out)
{
    static const struct { WORD type; DWORD size; } sizes[] = {
        {RPC_I1, 1}, {RPC_U1, 1}, {RPC_I2, 2}, {RPC_U2, 2}, {RPC_I4, 4}, {RPC_U4, 4}, {RPC_R4, 4}, {RPC_I8, 8}, {RPC_U8, 8}, {RPC_R8, 8}};
    size_t i;
    VariantInit(out);
    if (in->type & RPC_ARRAY) return take_array(in, out);
    switch (in->type) {
    case RPC_EMPTY: return TRUE;
    case RPC_NULL: V_VT(out) = VT_NULL; return TRUE;
    case RPC_BOOL:
        V_VT(out) = VT_BOOL;
        V_BOOL(out) = in->size == 1 && *in->data ? VARIANT_TRUE : VARIANT_FALSE;
        return in->size == 1;
    case RPC_TEXT:
        V_VT(out) = VT_BSTR;
        return (V_BSTR(out) = SysAllocStringByteLen((const char *)in->data, in->size)) != NULL;
    case RPC_OBJECT: {
        UINT64 id;
        proxy *p = NULL;
        if (in->size != 8) return FALSE;
        memcpy(&id, in->data, 8);
        if (id && !(p = new_proxy(id))) return FALSE;
        V_VT(out) = VT_DISPATCH;
        V_DISPATCH(out) = p ? &p->dispatch : NULL;
        return TRUE;
    }
    }
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (in->type == sizes[i].type && in->size == sizes[i].size) {
            V_VT(out) = in->type;
            V_I8(out) = 0;
            memcpy(&V_I8(out), in->data, in->size);
            return TRUE;
        }
    return FALSE;
}

/* Interfaces */

static HRESULT query(proxy *p, REFIID iid, void **out)
{
    rpc_buffer in = {0}, answer = {0};
    WCHAR text[64];
    HRESULT hr = S_OK;
    *out = NULL;
    if (!IsEqualGUID(iid, &IID_IUnknown) && !IsEqualGUID(iid, &IID_IDispatch)) {
        StringFromGUID2(iid, text, sizeof text / sizeof *text);
        rpc_put_object(&in, p->id);
        rpc_put_text(&in, text);
        hr = call("query", &in, &answer);
        rpc_free(&in);
        rpc_free(&answer);
        if (hr != S_OK) return hr;
    }
    InterlockedIncrement(&p->references);
    *out = IsEqualGUID(iid, &IID_IEnumVARIANT) ? (void *)&p->items : (void *)&p->dispatch;
    return S_OK;
}

static ULONG release(proxy *p)
{
    ULONG left = InterlockedDecrement(&p->references);
    if (left) return left;
    while (p->at < p->count) VariantClear(&p->fetched[p->at++]);
    while (p->constant_count) VariantClear(&p->constants[--p->constant_count].value);
    give_back(p->id);
    free(p);
    return 0;
}

static BOOL known_name(WORD kind, const WCHAR *name, DISPID *id)
{
    BOOL found = FALSE;
    int i;
    AcquireSRWLockShared(&names_lock);
    for (i = 0; i < names_count && !found; i++)
        if ((found = names[i].kind == kind && !lstrcmpW(names[i].name, name))) *id = names[i].id;
    ReleaseSRWLockShared(&names_lock);
    return found;
}

static void remember_name(WORD kind, const WCHAR *name, DISPID id)
{
    AcquireSRWLockExclusive(&names_lock);
    if (names_count < (int)(sizeof names / sizeof *names) && lstrlenW(name) < (int)(sizeof names->name / sizeof *name)) {
        names[names_count].kind = kind;
        names[names_count].id = id;
        lstrcpyW(names[names_count++].name, name);
    }
    ReleaseSRWLockExclusive(&names_lock);
}

static HRESULT ask_name(proxy *p, const WCHAR *name, DISPID *id)
{
    rpc_buffer in = {0}, out = {0};
    WORD kind = (WORD)(p->id >> 48);
    HRESULT hr;
    if (known_name(kind, name, id)) return S_OK;
    rpc_put_object(&in, p->id);
    rpc_put_text(&in, name);
    hr = call("names", &in, &out);
    if (hr == S_OK) {
        *id = (DISPID)rpc_take_u32(&out);
        if (rpc_take_bool(&out)) remember_name(kind, name, *id);
        if (out.bad) hr = E_UNEXPECTED;
    }
    rpc_free(&in);
    rpc_free(&out);
    return hr;
}

/* Takes the code and the description of an exception. */
static void take_exception(rpc_buffer *out, EXCEPINFO *exception)
{
    WCHAR *text;
    memset(exception, 0, sizeof *exception);
    exception->scode = (SCODE)rpc_take_u32(out);
    if ((text = rpc_take_text(out))) exception->bstrDescription = SysAllocString(text);
    free(text);
    exception->bstrSource = SysAllocString(L"SWbemObjectEx");
}

static BOOL known_constant(proxy *p, DISPID id, WORD flags, const DISPPARAMS *params, VARIANT *result)
{
    int i;
    for (i = 0; i < p->constant_count && (flags & DISPATCH_PROPERTYGET) && !params->cArgs && result; i++)
        if (p->constants[i].id == id) {
            VariantInit(result);
            return VariantCopy(result, &p->constants[i].value) == S_OK;
        }
    return FALSE;
}

static HRESULT invoke(proxy *p, DISPID id, WORD flags, const DISPPARAMS *params, VARIANT *result, EXCEPINFO *exception)
{
    rpc_buffer in = {0}, out = {0};
    rpc_value value;
    VARIANT unwanted;
    BOOL put = flags & (DISPATCH_PROPERTYPUT | DISPATCH_PROPERTYPUTREF);
    HRESULT hr = S_OK;
    UINT i;
    /* The value of a put is a named argument, as DispInvoke insists. */
    if (params->cNamedArgs != (put ? 1 : 0)) return DISP_E_NONAMEDARGS;
    if (put && (params->cArgs < 1 || *params->rgdispidNamedArgs != DISPID_PROPERTYPUT)) return DISP_E_PARAMNOTFOUND;
    if (known_constant(p, id, flags, params, result)) return S_OK;
    rpc_put_object(&in, p->id);
    rpc_put(&in, RPC_I4, &id, 4);
    rpc_put_u32(&in, flags);
    for (i = params->cArgs; i-- && hr == S_OK;)
        if (!put_value(&in, &params->rgvarg[i])) hr = DISP_E_TYPEMISMATCH;
    if (hr == S_OK) hr = call("invoke", &in, &out);
    if (!result) result = &unwanted;
    VariantInit(result);
    if (hr == S_OK && rpc_take(&out, &value)) {
        if (!take_value(&value, result)) hr = E_UNEXPECTED;
        else if (id == DISPID_NEWENUM && V_VT(result) == VT_DISPATCH) V_VT(result) = VT_UNKNOWN;
    } else if (hr == DISP_E_EXCEPTION && exception)
        take_exception(&out, exception);
    if (result == &unwanted || hr != S_OK) VariantClear(result);
    rpc_free(&in);
    rpc_free(&out);
    return hr;
}

static BOOL take_item(const rpc_value *in, VARIANT *out)
{
    rpc_buffer parts = rpc_items(in);
    rpc_value part;
    proxy *p;
    VariantInit(out);
    if (!(in->type & RPC_ARRAY)) return take_value(in, out);
    if (!rpc_take(&parts, &part) || !take_value(&part, out) || V_VT(out) != VT_DISPATCH || !V_DISPATCH(out)) return FALSE;
    p = (proxy *)V_DISPATCH(out);
    while (p->constant_count < CONSTANTS && parts.at < parts.size) {
        p->constants[p->constant_count].id = (DISPID)rpc_take_u32(&parts);
        if (!rpc_take(&parts, &part) || !take_value(&part, &p->constants[p->constant_count++].value)) return FALSE;
    }
    return TRUE;
}

static HRESULT fetch(proxy *p)
{
    rpc_buffer in = {0}, out = {0};
    rpc_value value;
    HRESULT hr;
    p->at = p->count = 0;
    rpc_put_object(&in, p->id);
    rpc_put_u32(&in, BATCH);
    hr = call("next", &in, &out);
    while (hr == S_OK && p->count < BATCH && rpc_take(&out, &value))
        if (!take_item(&value, &p->fetched[p->count++])) hr = E_UNEXPECTED;
    p->ended = hr == S_OK && p->count < BATCH;
    rpc_free(&in);
    rpc_free(&out);
    return hr;
}

/* IDispatch */

static HRESULT WINAPI dispatch_query(IDispatch *self, REFIID iid, void **out) { return query((proxy *)self, iid, out); }
static ULONG WINAPI dispatch_add(IDispatch *self) { return InterlockedIncrement(&((proxy *)self)->references); }
static ULONG WINAPI dispatch_release(IDispatch *self) { return release((proxy *)self); }
static HRESULT WINAPI dispatch_count(IDispatch *self, UINT *n) { (void)self; *n = 0; return S_OK; }
static HRESULT WINAPI dispatch_info(IDispatch *self, UINT i, LCID lcid, ITypeInfo **out) { (void)self; (void)i; (void)lcid; *out = NULL; return E_NOTIMPL; }

static HRESULT WINAPI dispatch_names(IDispatch *self, REFIID iid, LPOLESTR *all, UINT count, LCID lcid, DISPID *ids)
{
    (void)iid; (void)lcid;
    if (count != 1) return E_NOTIMPL; /* names of arguments */
    return ask_name((proxy *)self, *all, ids);
}

static HRESULT WINAPI dispatch_invoke(IDispatch *self, DISPID id, REFIID iid, LCID lcid, WORD flags, DISPPARAMS *params, VARIANT *result,
    EXCEPINFO *exception, UINT *bad)
{
    (void)iid; (void)lcid; (void)bad;
    return invoke((proxy *)self, id, flags, params, result, exception);
}

static IDispatchVtbl dispatch_methods = {
    dispatch_query, dispatch_add, dispatch_release, dispatch_count, dispatch_info, dispatch_names, dispatch_invoke};

/* IEnumVARIANT */

static proxy *of_items(IEnumVARIANT *self) { return (proxy *)((char *)self - offsetof(proxy, items)); }
static HRESULT WINAPI items_query(IEnumVARIANT *self, REFIID iid, void **out) { return query(of_items(self), iid, out); }
static ULONG WINAPI items_add(IEnumVARIANT *self) { return InterlockedIncrement(&of_items(self)->references); }
static ULONG WINAPI items_release(IEnumVARIANT *self) { return release(of_items(self)); }

static HRESULT WINAPI items_next(IEnumVARIANT *self, ULONG wanted, VARIANT *out, ULONG *got)
{
    proxy *p = of_items(self);
    ULONG n = 0;
    HRESULT hr = S_OK;
    while (n < wanted && hr == S_OK) {
        if (p->at < p->count) out[n++] = p->fetched[p->at++];
        else if (p->ended) hr = S_FALSE;
        else hr = fetch(p);
    }
    if (got) *got = n;
    return hr;
}

static HRESULT WINAPI items_skip(IEnumVARIANT *self, ULONG n) { (void)self; (void)n; return E_NOTIMPL; }
static HRESULT WINAPI items_reset(IEnumVARIANT *self) { (void)self; return E_NOTIMPL; }
static HRESULT WINAPI items_clone(IEnumVARIANT *self, IEnumVARIANT **out) { (void)self; *out = NULL; return E_NOTIMPL; }

static IEnumVARIANTVtbl items_methods = {items_query, items_add, items_release, items_next, items_skip, items_reset, items_clone};

/* Class factories: one for each class that is asked for, kept for good. */

typedef struct { IClassFactory factory; CLSID class; } factory;

static HRESULT WINAPI factory_query(IClassFactory *self, REFIID iid, void **out)
{
    BOOL known = IsEqualGUID(iid, &IID_IUnknown) || IsEqualGUID(iid, &IID_IClassFactory);
    *out = known ? self : NULL;
    return known ? S_OK : E_NOINTERFACE;
}

static ULONG WINAPI factory_references(IClassFactory *self) { (void)self; return 1; }

static HRESULT WINAPI factory_create(IClassFactory *self, IUnknown *outer, REFIID iid, void **out)
{
    rpc_buffer in = {0}, answer = {0};
    rpc_value value;
    WCHAR class[64];
    VARIANT object;
    HRESULT hr;
    *out = NULL;
    if (outer) return CLASS_E_NOAGGREGATION;
    StringFromGUID2(&((factory *)self)->class, class, sizeof class / sizeof *class);
    rpc_put_text(&in, class);
    hr = call("create", &in, &answer);
    VariantInit(&object);
    if (hr == S_OK && (!rpc_take(&answer, &value) || !take_value(&value, &object) || V_VT(&object) != VT_DISPATCH || !V_DISPATCH(&object)))
        hr = E_UNEXPECTED;
    if (hr == S_OK) hr = IDispatch_QueryInterface(V_DISPATCH(&object), iid, out);
    VariantClear(&object);
    rpc_free(&in);
    rpc_free(&answer);
    return hr;
}

static HRESULT WINAPI factory_lock(IClassFactory *self, BOOL lock) { (void)self; (void)lock; return S_OK; }

static IClassFactoryVtbl factory_methods = {factory_query, factory_references, factory_references, factory_create, factory_lock};

HRESULT WINAPI DllGetClassObject(REFCLSID class, REFIID iid, void **out)
{
    factory *f = calloc(1, sizeof *f);
    HRESULT hr;
    if (!f) return E_OUTOFMEMORY;
    f->factory.lpVtbl = &factory_methods;
    f->class = *class;
    hr = factory_query(&f->factory, iid, out);
    if (hr != S_OK) free(f);
    return hr;
}

HRESULT WINAPI DllCanUnloadNow(void) { return S_FALSE; }
