/* Wine 8 lacks bcryptprimitives.dll, without which no Go program starts. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG size); /* RtlGenRandom, in advapi32 */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size)
{
    while (size) {
        ULONG part = size > 1 << 20 ? 1 << 20 : (ULONG)size;
        if (!SystemFunction036(data, part)) return FALSE;
        data += part; size -= part;
    }
    return TRUE;
}
