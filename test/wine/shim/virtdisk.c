/*
 * virtdisk.dll in front of an emulated Hyper-V host. Every function asks the host; here are only the layouts.
 *
 * OpenVirtualDisk's HANDLE is that of a file which the host made for it. The file is deleted when the handle is closed, by the program or by the end of it:
 * that is how the host learns of it. Once the disk is attached, the file has the guest's bytes, and the handle reads them.
 */
#define RPC_SERVICE "disk"
#define _INC_VIRTDISK /* not yet: windows.h would declare the functions as imported */
#include "rpc.h"

#undef _INC_VIRTDISK
#undef DECLSPEC_IMPORT
#define DECLSPEC_IMPORT
#include <virtdisk.h>

static DWORD name_of(HANDLE handle, rpc_buffer *in)
{
    WCHAR path[MAX_PATH], *name;
    DWORD n = GetFinalPathNameByHandleW(handle, path, MAX_PATH, VOLUME_NAME_DOS);
    if (!n || n >= MAX_PATH || !(name = wcsrchr(path, '\\'))) return ERROR_INVALID_HANDLE;
    rpc_put_text(in, name + 1);
    return 0;
}

/* The host names files by Win32 paths without a prefix. */
static const WCHAR *plain(const WCHAR *path)
{
    return wcsncmp(path, L"\\\\?\\", 4) ? path : path + 4;
}

DWORD WINAPI OpenVirtualDisk(PVIRTUAL_STORAGE_TYPE type, PCWSTR path, VIRTUAL_DISK_ACCESS_MASK mask, OPEN_VIRTUAL_DISK_FLAG flags,
                             POPEN_VIRTUAL_DISK_PARAMETERS parameters, PHANDLE handle)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status;
    WCHAR *file = NULL;
    int v2 = parameters && parameters->Version == OPEN_VIRTUAL_DISK_VERSION_2;
    if (!type || !path || !handle || flags != OPEN_VIRTUAL_DISK_FLAG_NONE) return ERROR_INVALID_PARAMETER;
    rpc_put_text(&in, plain(path));
    rpc_put_u32(&in, parameters ? parameters->Version : OPEN_VIRTUAL_DISK_VERSION_1);
    rpc_put_u32(&in, mask);
    rpc_put_bool(&in, v2 && parameters->Version2.GetInfoOnly);
    rpc_put_bool(&in, v2 && parameters->Version2.ReadOnly);
    status = rpc_call("OpenVirtualDisk", &in, &out);
    if (!status && !(file = rpc_take_text(&out))) status = ERROR_GEN_FAILURE;
    if (!status) {
        *handle = CreateFileW(file, GENERIC_READ | DELETE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                              FILE_FLAG_OVERLAPPED | FILE_FLAG_NO_BUFFERING | FILE_FLAG_DELETE_ON_CLOSE, NULL);
        if (*handle == INVALID_HANDLE_VALUE) status = GetLastError();
    }
    free(file); rpc_free(&in); rpc_free(&out);
    return status;
}

DWORD WINAPI AttachVirtualDisk(HANDLE handle, PSECURITY_DESCRIPTOR security, ATTACH_VIRTUAL_DISK_FLAG flags, ULONG provider_flags,
                               PATTACH_VIRTUAL_DISK_PARAMETERS parameters, LPOVERLAPPED overlapped)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status = name_of(handle, &in);
    if (!status && (security || provider_flags || overlapped || (parameters && parameters->Version != ATTACH_VIRTUAL_DISK_VERSION_1)))
        status = ERROR_INVALID_PARAMETER;
    rpc_put_u32(&in, flags);
    if (!status) status = rpc_call("AttachVirtualDisk", &in, &out);
    rpc_free(&in); rpc_free(&out);
    return status;
}

DWORD WINAPI DetachVirtualDisk(HANDLE handle, DETACH_VIRTUAL_DISK_FLAG flags, ULONG provider_flags)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status = name_of(handle, &in);
    if (!status && (flags || provider_flags)) status = ERROR_INVALID_PARAMETER;
    if (!status) status = rpc_call("DetachVirtualDisk", &in, &out);
    rpc_free(&in); rpc_free(&out);
    return status;
}

DWORD WINAPI GetVirtualDiskPhysicalPath(HANDLE handle, PULONG size, PWSTR path)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status = name_of(handle, &in), needed;
    rpc_value v;
    if (!status) status = rpc_call("GetVirtualDiskPhysicalPath", &in, &out);
    if (!status && (!rpc_take(&out, &v) || v.type != RPC_TEXT)) status = ERROR_GEN_FAILURE;
    if (!status) {
        needed = v.size + sizeof *path;
        if (*size < needed || !path) status = ERROR_INSUFFICIENT_BUFFER;
        else { memcpy(path, v.data, v.size); path[v.size / sizeof *path] = 0; }
        *size = needed;
    }
    rpc_free(&in); rpc_free(&out);
    return status;
}

/* Copies text with an end mark, and one more behind a list of texts, when there is room for it. Returns the bytes that it needs. */
static ULONG put_text(rpc_buffer *out, WCHAR *to, ULONG room, int marks)
{
    rpc_value v;
    ULONG needed;
    if (!rpc_take(out, &v) || v.type != RPC_TEXT) { out->bad = 1; return 0; }
    needed = v.size + marks * sizeof *to;
    if (room >= needed) { memset(to, 0, needed); memcpy(to, v.data, v.size); }
    return needed;
}

#define HEAD FIELD_OFFSET(GET_VIRTUAL_DISK_INFO, Size)
#define AFTER(field) (FIELD_OFFSET(GET_VIRTUAL_DISK_INFO, field) + sizeof ((GET_VIRTUAL_DISK_INFO *)0)->field)

/* Fills in what the host told. Returns the bytes that it needs; beyond room it writes nothing. */
static ULONG put_information(rpc_buffer *out, GET_VIRTUAL_DISK_INFO *info, ULONG room)
{
    GET_VIRTUAL_DISK_INFO all = {0};
    ULONG fixed, text = 0;
    all.Version = info->Version;
    switch (info->Version) {
    case GET_VIRTUAL_DISK_INFO_SIZE:
        all.Size.VirtualSize = rpc_take_u64(out); all.Size.PhysicalSize = rpc_take_u64(out);
        all.Size.BlockSize = rpc_take_u32(out); all.Size.SectorSize = rpc_take_u32(out);
        fixed = AFTER(Size);
        break;
    case GET_VIRTUAL_DISK_INFO_PARENT_LOCATION:
        all.ParentLocation.ParentResolved = rpc_take_bool(out);
        fixed = FIELD_OFFSET(GET_VIRTUAL_DISK_INFO, ParentLocation.ParentLocationBuffer);
        text = put_text(out, info->ParentLocation.ParentLocationBuffer, room > fixed ? room - fixed : 0, 2);
        break;
    case GET_VIRTUAL_DISK_INFO_VHD_PHYSICAL_SECTOR_SIZE:
        all.VhdPhysicalSectorSize = rpc_take_u32(out);
        fixed = AFTER(VhdPhysicalSectorSize);
        break;
    case GET_VIRTUAL_DISK_INFO_VIRTUAL_DISK_ID: {
        rpc_value v;
        if (rpc_take(out, &v) && v.size == sizeof all.VirtualDiskId) memcpy(&all.VirtualDiskId, v.data, v.size);
        else out->bad = 1;
        fixed = AFTER(VirtualDiskId);
        break;
    }
    default: /* GET_VIRTUAL_DISK_INFO_CHANGE_TRACKING_STATE; the host refuses others */
        all.ChangeTrackingState.Enabled = rpc_take_bool(out); all.ChangeTrackingState.NewerChanges = rpc_take_bool(out);
        fixed = FIELD_OFFSET(GET_VIRTUAL_DISK_INFO, ChangeTrackingState.MostRecentId);
        text = put_text(out, info->ChangeTrackingState.MostRecentId, room > fixed ? room - fixed : 0, 1);
    }
    if (room >= fixed + text) memcpy(info, &all, fixed);
    return fixed + text;
}

DWORD WINAPI GetVirtualDiskInformation(HANDLE handle, PULONG size, PGET_VIRTUAL_DISK_INFO info, PULONG used)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status = name_of(handle, &in);
    ULONG needed;
    if (!status && (!size || !info || *size < HEAD)) status = ERROR_INVALID_PARAMETER;
    if (!status) {
        rpc_put_u32(&in, info->Version);
        status = rpc_call("GetVirtualDiskInformation", &in, &out);
    }
    if (!status) {
        needed = put_information(&out, info, *size);
        if (out.bad) status = ERROR_GEN_FAILURE;
        else if (*size < needed) status = ERROR_INSUFFICIENT_BUFFER;
        *size = needed;
        if (used) *used = needed;
    }
    rpc_free(&in); rpc_free(&out);
    return status;
}

DWORD WINAPI SetVirtualDiskInformation(HANDLE handle, PSET_VIRTUAL_DISK_INFO info)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status = name_of(handle, &in);
    if (!status && !info) status = ERROR_INVALID_PARAMETER;
    if (!status) {
        rpc_put_u32(&in, info->Version);
        rpc_put_bool(&in, info->Version == SET_VIRTUAL_DISK_INFO_CHANGE_TRACKING_STATE && info->ChangeTrackingEnabled);
        status = rpc_call("SetVirtualDiskInformation", &in, &out);
    }
    rpc_free(&in); rpc_free(&out);
    return status;
}

DWORD WINAPI QueryChangesVirtualDisk(HANDLE handle, PCWSTR id, ULONG64 offset, ULONG64 length, QUERY_CHANGES_VIRTUAL_DISK_FLAG flags,
                                     PQUERY_CHANGES_VIRTUAL_DISK_RANGE ranges, PULONG count, PULONG64 processed)
{
    rpc_buffer in = {0}, out = {0};
    DWORD status = name_of(handle, &in);
    rpc_value v;
    ULONG i;
    if (!status && (!id || flags || !ranges || !count || !processed)) status = ERROR_INVALID_PARAMETER;
    if (!status) {
        rpc_put_text(&in, id); rpc_put_u64(&in, offset); rpc_put_u64(&in, length); rpc_put_u32(&in, *count);
        status = rpc_call("QueryChangesVirtualDisk", &in, &out);
    }
    if ((!status || status == ERROR_MORE_DATA) && (!rpc_take(&out, &v) || v.size / 16 > *count)) status = ERROR_GEN_FAILURE;
    if (!status || status == ERROR_MORE_DATA) {
        *count = v.size / 16;
        for (i = 0; i < *count; i++) {
            memcpy(&ranges[i].ByteOffset, v.data + 16 * i, 8); memcpy(&ranges[i].ByteLength, v.data + 16 * i + 8, 8);
            ranges[i].Reserved = 0;
        }
        *processed = rpc_take_u64(&out);
    }
    rpc_free(&in); rpc_free(&out);
    return status;
}
