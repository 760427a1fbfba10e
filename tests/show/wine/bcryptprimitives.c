/* What Wine 8 lacks of Windows and the programs need, as one DLL beside them. Built and used by `windows.sh` only.
 *
 * `bcryptprimitives.dll` itself, of which Rust's standard library takes its random numbers, is not there. And the shell does
 * not say where a tray icon is (`Shell_NotifyIconGetRect` is E_NOTIMPL), without which a click on one is dropped: the
 * program's import of it is pointed to a version that answers with the place of the pointer, where the click was. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <shellapi.h>
#include <ntsecapi.h>
#include <string.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE into, SIZE_T bytes) { return RtlGenRandom(into, (ULONG)bytes); }

static HRESULT WINAPI at_the_pointer(const NOTIFYICONIDENTIFIER *icon, RECT *place) {
  POINT pointer;
  if (!GetCursorPos(&pointer)) return E_FAIL;
  SetRect(place, pointer.x - 8, pointer.y - 8, pointer.x + 8, pointer.y + 8);
  return S_OK;
}

static void point_import(BYTE *image, const char *name, void *to) {
  IMAGE_NT_HEADERS *head = (IMAGE_NT_HEADERS *)(image + ((IMAGE_DOS_HEADER *)image)->e_lfanew);
  IMAGE_DATA_DIRECTORY list = head->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT];
  IMAGE_IMPORT_DESCRIPTOR *dll = (IMAGE_IMPORT_DESCRIPTOR *)(image + list.VirtualAddress);
  for (; list.Size && dll->Name; dll++) {
    IMAGE_THUNK_DATA *wanted = (IMAGE_THUNK_DATA *)(image + dll->OriginalFirstThunk);
    IMAGE_THUNK_DATA *bound = (IMAGE_THUNK_DATA *)(image + dll->FirstThunk);
    for (; dll->OriginalFirstThunk && wanted->u1.AddressOfData; wanted++, bound++) {
      if (IMAGE_SNAP_BY_ORDINAL(wanted->u1.Ordinal)) continue;
      if (strcmp(((IMAGE_IMPORT_BY_NAME *)(image + wanted->u1.AddressOfData))->Name, name)) continue;
      DWORD before;
      VirtualProtect(&bound->u1.Function, sizeof bound->u1.Function, PAGE_READWRITE, &before);
      bound->u1.Function = (ULONG_PTR)to;
      VirtualProtect(&bound->u1.Function, sizeof bound->u1.Function, before, &before);
    }
  }
}

BOOL WINAPI DllMain(HINSTANCE own, DWORD reason, void *reserved) {
  if (reason == DLL_PROCESS_ATTACH) point_import((BYTE *)GetModuleHandleW(NULL), "Shell_NotifyIconGetRect", at_the_pointer);
  return TRUE;
}
