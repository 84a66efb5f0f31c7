# cmake -D OUT=FILE.cpp -D FILES=NAME:TYPE:PATH,... -P embed.cmake: server::page_files(), with the text of each file.
string(REPLACE "," ";" files "${FILES}")
set(rows "")
foreach(file IN LISTS files)
  string(REGEX MATCH "^([^:]+):([^:]+):(.+)$" parts "${file}")
  set(name "${CMAKE_MATCH_1}")
  set(type "${CMAKE_MATCH_2}")
  set(path "${CMAKE_MATCH_3}")
  file(READ "${path}" text)
  if(text MATCHES "\\)PAGE\"")
    message(FATAL_ERROR "${path}: the mark of the literal stands in it")
  endif()
  string(APPEND rows "    {\"${name}\", \"${type}; charset=utf-8\", R\"PAGE(${text})PAGE\"},\n")
endforeach()
file(WRITE "${OUT}" "// Made by cmake/embed.cmake.
#include \"server/operations/page_files.hpp\"

namespace headstart::server {

std::span<const PageFile> page_files() {
  static constexpr PageFile files[] = {
${rows}  };
  return files;
}

}  // namespace headstart::server
")
