# How the project's own targets are compiled: one room, one static library.

set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_INTERPROCEDURAL_OPTIMIZATION OFF)

find_program(HEADSTART_CCACHE ccache)
if(HEADSTART_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # The sloppiness lets ccache serve files that were compiled with a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${HEADSTART_CCACHE})
endif()

# A compile with LibTorch headers peaks above 1 GB: no more of them at once than memory allows.
cmake_host_system_information(RESULT headstart_memory_mib QUERY TOTAL_PHYSICAL_MEMORY)
math(EXPR headstart_torch_jobs "${headstart_memory_mib} / 2048")
if(headstart_torch_jobs LESS 1)
  set(headstart_torch_jobs 1)
endif()
set_property(GLOBAL APPEND PROPERTY JOB_POOLS headstart_torch=${headstart_torch_jobs})

add_library(headstart_options INTERFACE)
# ccache can only cache what it sees preprocessed together with the precompiled header.
target_compile_options(headstart_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
target_compile_features(headstart_options INTERFACE cxx_std_20)
target_include_directories(headstart_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(headstart_options INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wconversion -Wno-sign-conversion
  # Options structs are made by designated initialisers that name only what differs from the defaults.
  -Wno-missing-field-initializers
  # g++ 12 warns of impossible overlaps inside its own std::string (GCC bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
  $<$<BOOL:${HEADSTART_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL Clang)
  target_compile_options(headstart_options INTERFACE "SHELL:-include ${PROJECT_SOURCE_DIR}/cmake/clang_vector.hpp")
endif()
if(HEADSTART_SANITIZE)
  target_compile_options(headstart_options INTERFACE -fsanitize=${HEADSTART_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(headstart_options INTERFACE -fsanitize=${HEADSTART_SANITIZE})
endif()

if(HEADSTART_FUZZ)
  target_compile_options(headstart_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Position-independent everywhere, executables too: one precompiled header can then serve every target.
set(CMAKE_POSITION_INDEPENDENT_CODE OFF)
target_compile_options(headstart_options INTERFACE -fPIC)

# headstart_library(NAME SOURCES... [LIBS ...]): one room.
function(headstart_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBS" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
  target_link_libraries(${name} PUBLIC headstart_options ${arg_LIBS})
endfunction()

# headstart_use_torch(TARGET): LibTorch as a system library, its tensors precompiled once for all targets.
function(headstart_use_torch name)
  target_include_directories(${name} SYSTEM PUBLIC ${TORCH_INCLUDE_DIRS})
  target_link_libraries(${name} PUBLIC ${TORCH_LIBRARIES})
  set_target_properties(${name} PROPERTIES JOB_POOL_COMPILE headstart_torch)
  if(TARGET headstart_torch_pch)
    target_precompile_headers(${name} REUSE_FROM headstart_torch_pch)
  endif()
endfunction()

# headstart_make_torch_pch(): to be called once, after find_package(Torch). Tensors alone: all of torch/torch.h (networks,
# optimisers, data loaders) costs each unit seven seconds more, in templates that are instantiated at its end.
function(headstart_make_torch_pch)
  add_library(headstart_torch_pch OBJECT ${PROJECT_SOURCE_DIR}/cmake/precompiled.cpp)
  set_target_properties(headstart_torch_pch PROPERTIES CXX_EXTENSIONS OFF)
  target_link_libraries(headstart_torch_pch PRIVATE headstart_options nlohmann_json::nlohmann_json spdlog::spdlog
                        ${TORCH_LIBRARIES})
  target_include_directories(headstart_torch_pch SYSTEM PRIVATE ${TORCH_INCLUDE_DIRS})
  target_precompile_headers(headstart_torch_pch PRIVATE
    <filesystem> <functional> <map> <memory> <optional> <string> <vector>
    <fmt/format.h> <fmt/ranges.h> <nlohmann/json.hpp> <torch/types.h>)
endfunction()
