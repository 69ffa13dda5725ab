/*
 * Stands in for vssapi.dll: IVssBackupComponents and what it gives out, as far as the agent calls them. The vtables are mingw's own declarations of
 * the interfaces, so each method is in the slot of its name. Each method is one call to the host (agent/hyperv/emulator/shim/vss.go).
 */
#define RPC_SERVICE "vss"
#define COBJMACROS
#include "rpc.h"
#include <vss.h>
#include <vswriter.h>
#include <vsbackup.h>

/* An object of the host. vtbl is first, so that a pointer to it is the interface. */
typedef struct { const void *vtbl; LONG refs; UINT64 id; } object;

static HRESULT result_of(DWORD status) { return status == RPC_UNAVAILABLE ? HRESULT_FROM_WIN32(status) : (HRESULT)status; }

/* Calls a method without arguments. */
static HRESULT plain(object *o, const char *function)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    rpc_put_object(&in, o->id);
    status = rpc_call(function, &in, &out);
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static void put_guid(rpc_buffer *b, const GUID *id)
{
    WCHAR text[40];
    StringFromGUID2(id, text, 40);
    rpc_put_text(b, text);
}

static int take_guid(rpc_buffer *b, GUID *id)
{
    WCHAR *text = rpc_take_text(b);
    int ok = text && SUCCEEDED(CLSIDFromString(text, id));
    free(text);
    return ok;
}

static VSS_PWSZ take_string(rpc_buffer *b)
{
    WCHAR *text = rpc_take_text(b);
    SIZE_T size = text ? (lstrlenW(text) + 1) * sizeof *text : 0;
    VSS_PWSZ s = text ? CoTaskMemAlloc(size) : NULL;
    if (s) memcpy(s, text, size);
    free(text);
    return s;
}

/* IUnknown */

static HRESULT WINAPI no_interface(object *o, REFIID iid, void **out) { (void)o; (void)iid; *out = NULL; return E_NOINTERFACE; }
static ULONG WINAPI add_ref(object *o) { return InterlockedIncrement(&o->refs); }
static ULONG WINAPI release(object *o)
{
    LONG left = InterlockedDecrement(&o->refs);
    if (!left) {
        plain(o, "Release");
        free(o);
    }
    return left;
}

/* What nobody calls. The caller cleans the stack, so one function fits all. */
static HRESULT WINAPI not_implemented(void) { return E_NOTIMPL; }

static object *new_object(const void *vtbl, UINT64 id)
{
    object *o = calloc(1, sizeof *o);
    if (o) { o->vtbl = vtbl; o->refs = 1; o->id = id; }
    return o;
}

/* IVssAsync */

static HRESULT WINAPI async_cancel(object *o) { return plain(o, "Cancel"); }

static HRESULT WINAPI async_status(object *o, HRESULT *result, INT *reserved)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    if (reserved) *reserved = 0;
    rpc_put_object(&in, o->id);
    status = rpc_call("QueryStatus", &in, &out);
    if (!status) *result = (HRESULT)rpc_take_u32(&out);
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static HRESULT WINAPI async_wait(object *o, DWORD milliseconds)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    rpc_put_object(&in, o->id); rpc_put_u32(&in, milliseconds);
    status = rpc_call("Wait", &in, &out);
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static IVssAsyncVtbl async_vtbl = {
    (void *)no_interface, (void *)add_ref, (void *)release, (void *)async_cancel, (void *)async_wait, (void *)async_status,
};

static HRESULT start(object *o, const char *function, object **async)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    *async = NULL;
    rpc_put_object(&in, o->id);
    status = rpc_call(function, &in, &out);
    if (!status) *async = new_object(&async_vtbl, rpc_take_object(&out));
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

/* IVssExamineWriterMetadata */

static HRESULT WINAPI metadata_save(object *o, BSTR *document)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    WCHAR *text = NULL;
    *document = NULL;
    rpc_put_object(&in, o->id);
    status = rpc_call("SaveAsXML", &in, &out);
    if (!status && (text = rpc_take_text(&out))) *document = SysAllocString(text);
    free(text);
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static IVssExamineWriterMetadataVtbl metadata_vtbl;

/* IVssBackupComponents */

static HRESULT WINAPI initialize(object *o, BSTR xml) { return xml ? E_NOTIMPL : plain(o, "InitializeForBackup"); }
static HRESULT WINAPI set_state(object *o, boolean select, boolean system, VSS_BACKUP_TYPE type, boolean partial)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    if (select != 1 || system || partial) return E_INVALIDARG;
    rpc_put_object(&in, o->id); rpc_put_u32(&in, (UINT32)type);
    status = rpc_call("SetBackupState", &in, &out);
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}
static HRESULT WINAPI set_context(object *o, LONG context)
{
    return context == VSS_CTX_BACKUP || context == (LONG)VSS_CTX_ALL ? plain(o, "SetContext") : E_INVALIDARG;
}
static HRESULT WINAPI enable_classes(object *o, const VSS_ID *classes, UINT count) { return classes && count ? plain(o, "EnableWriterClasses") : E_INVALIDARG; }
static HRESULT WINAPI gather_metadata(object *o, object **async) { return start(o, "GatherWriterMetadata", async); }
static HRESULT WINAPI free_metadata(object *o) { return plain(o, "FreeWriterMetadata"); }

static HRESULT WINAPI metadata(object *o, UINT writer, VSS_ID *instance, object **metadata)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    *metadata = NULL;
    if (writer) return E_INVALIDARG;
    rpc_put_object(&in, o->id);
    status = rpc_call("GetWriterMetadata", &in, &out);
    if (!status) {
        if (!take_guid(&out, instance)) status = (DWORD)E_UNEXPECTED;
        else *metadata = new_object(&metadata_vtbl, rpc_take_object(&out));
    }
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

/* Calls a method that tells a number. */
static HRESULT number(object *o, const char *function, UINT *n)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    *n = 0;
    rpc_put_object(&in, o->id);
    status = rpc_call(function, &in, &out);
    if (!status) *n = rpc_take_u32(&out);
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static HRESULT WINAPI metadata_count(object *o, UINT *count) { return number(o, "GetWriterMetadataCount", count); }

static int is_hyperv(const VSS_ID *writer)
{
    static const GUID id = {0x66841CD4, 0x6DED, 0x4F4B, {0x8F, 0x17, 0xFD, 0x23, 0xF8, 0xDD, 0xC3, 0xDE}};
    return IsEqualGUID(writer, &id);
}

static HRESULT WINAPI add_component(object *o, VSS_ID instance, VSS_ID writer, VSS_COMPONENT_TYPE type, LPCWSTR path, LPCWSTR name)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    if (!is_hyperv(&writer) || type != VSS_CT_FILEGROUP || (path && *path)) return VSS_E_OBJECT_NOT_FOUND;
    rpc_put_object(&in, o->id); put_guid(&in, &instance); rpc_put_text(&in, name);
    status = rpc_call("AddComponent", &in, &out);
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static HRESULT WINAPI set_succeeded(object *o, VSS_ID instance, VSS_ID writer, VSS_COMPONENT_TYPE type, LPCWSTR path, LPCWSTR name, boolean succeeded)
{
    (void)instance; (void)succeeded;
    return is_hyperv(&writer) && type == VSS_CT_FILEGROUP && !(path && *path) && name ? plain(o, "SetBackupSucceeded") : VSS_E_OBJECT_NOT_FOUND;
}

static HRESULT WINAPI prepare(object *o, object **async) { return start(o, "PrepareForBackup", async); }
static HRESULT WINAPI do_set(object *o, object **async) { return start(o, "DoSnapshotSet", async); }
static HRESULT WINAPI complete(object *o, object **async) { return start(o, "BackupComplete", async); }
static HRESULT WINAPI abort_backup(object *o) { return plain(o, "AbortBackup"); }
static HRESULT WINAPI gather_status(object *o, object **async) { return start(o, "GatherWriterStatus", async); }
static HRESULT WINAPI free_status(object *o) { return plain(o, "FreeWriterStatus"); }
static HRESULT WINAPI status_count(object *o, UINT *count) { return number(o, "GetWriterStatusCount", count); }

static HRESULT WINAPI writer_status(object *o, UINT i, VSS_ID *instance, VSS_ID *writer, BSTR *name, VSS_WRITER_STATE *state, HRESULT *failure)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    if (i) return E_INVALIDARG;
    rpc_put_object(&in, o->id);
    status = rpc_call("GetWriterStatus", &in, &out);
    if (!status) {
        memset(instance, 0, sizeof *instance);
        take_guid(&out, writer);
        *state = (VSS_WRITER_STATE)rpc_take_u32(&out);
        *failure = (HRESULT)rpc_take_u32(&out);
        *name = SysAllocString(L"Microsoft Hyper-V VSS Writer");
    }
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static HRESULT WINAPI start_set(object *o, VSS_ID *set)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    rpc_put_object(&in, o->id);
    status = rpc_call("StartSnapshotSet", &in, &out);
    if (!status && !take_guid(&out, set)) status = (DWORD)E_UNEXPECTED;
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static HRESULT WINAPI add_volume(object *o, VSS_PWSZ volume, VSS_ID provider, VSS_ID *snapshot)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    rpc_put_object(&in, o->id); rpc_put_text(&in, volume); put_guid(&in, &provider);
    status = rpc_call("AddToSnapshotSet", &in, &out);
    if (!status && !take_guid(&out, snapshot)) status = (DWORD)E_UNEXPECTED;
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static HRESULT WINAPI delete_snapshots(object *o, VSS_ID source, VSS_OBJECT_TYPE type, WINBOOL force, LONG *deleted, VSS_ID *remaining)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    *deleted = 0; memset(remaining, 0, sizeof *remaining);
    if (type != VSS_OBJECT_SNAPSHOT_SET || !force) return E_INVALIDARG;
    rpc_put_object(&in, o->id); put_guid(&in, &source);
    status = rpc_call("DeleteSnapshots", &in, &out);
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static HRESULT WINAPI properties(object *o, VSS_ID snapshot, VSS_SNAPSHOT_PROP *p)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    memset(p, 0, sizeof *p);
    rpc_put_object(&in, o->id); put_guid(&in, &snapshot);
    status = rpc_call("GetSnapshotProperties", &in, &out);
    if (!status) {
        rpc_value v;
        p->m_SnapshotId = snapshot;
        p->m_pwszSnapshotDeviceObject = take_string(&out);
        p->m_pwszOriginalVolumeName = take_string(&out);
        if (rpc_take(&out, &v) && v.size == 8) memcpy(&p->m_tsCreationTimestamp, v.data, 8);
        p->m_eStatus = VSS_SS_CREATED;
    }
    rpc_free(&in); rpc_free(&out);
    return result_of(status);
}

static IVssBackupComponentsVtbl backup_vtbl;

static void fill(void *vtbl, size_t size)
{
    size_t i;
    for (i = 0; i < size / sizeof(void *); i++) ((void **)vtbl)[i] = (void *)not_implemented;
    ((void **)vtbl)[0] = (void *)no_interface; ((void **)vtbl)[1] = (void *)add_ref; ((void **)vtbl)[2] = (void *)release;
}

BOOL WINAPI DllMain(HINSTANCE instance, DWORD reason, void *reserved)
{
    IVssBackupComponentsVtbl *v = &backup_vtbl;
    (void)instance; (void)reserved;
    if (reason != DLL_PROCESS_ATTACH) return TRUE;
    fill(&metadata_vtbl, sizeof metadata_vtbl);
    metadata_vtbl.SaveAsXML = (void *)metadata_save;
    fill(v, sizeof *v);
    v->InitializeForBackup = (void *)initialize;           v->SetBackupState = (void *)set_state;
    v->SetContext = (void *)set_context;                   v->EnableWriterClasses = (void *)enable_classes;
    v->GatherWriterMetadata = (void *)gather_metadata;     v->GetWriterMetadataCount = (void *)metadata_count;
    v->GetWriterMetadata = (void *)metadata;               v->FreeWriterMetadata = (void *)free_metadata;
    v->AddComponent = (void *)add_component;               v->SetBackupSucceeded = (void *)set_succeeded;
    v->PrepareForBackup = (void *)prepare;                 v->AbortBackup = (void *)abort_backup;
    v->GatherWriterStatus = (void *)gather_status;         v->GetWriterStatusCount = (void *)status_count;
    v->GetWriterStatus = (void *)writer_status;            v->FreeWriterStatus = (void *)free_status;
    v->BackupComplete = (void *)complete;                  v->StartSnapshotSet = (void *)start_set;
    v->AddToSnapshotSet = (void *)add_volume;              v->DoSnapshotSet = (void *)do_set;
    v->DeleteSnapshots = (void *)delete_snapshots;         v->GetSnapshotProperties = (void *)properties;
    return TRUE;
}

HRESULT STDAPICALLTYPE CreateVssBackupComponentsInternal(IVssBackupComponents **backup)
{
    rpc_buffer out = {0};
    DWORD status = rpc_call("CreateVssBackupComponentsInternal", NULL, &out);
    *backup = NULL;
    if (!status) *backup = (IVssBackupComponents *)new_object(&backup_vtbl, rpc_take_object(&out));
    rpc_free(&out);
    return result_of(status);
}

void APIENTRY VssFreeSnapshotPropertiesInternal(VSS_SNAPSHOT_PROP *p)
{
    rpc_buffer out = {0};
    CoTaskMemFree(p->m_pwszSnapshotDeviceObject);
    CoTaskMemFree(p->m_pwszOriginalVolumeName);
    memset(p, 0, sizeof *p);
    rpc_call("VssFreeSnapshotPropertiesInternal", NULL, &out);
    rpc_free(&out);
}
