# Debian packages: `cpack --config build/release/CPackConfig.cmake` after a build, or `./run packages`.
# One package a program's user: the coordinator, a silo, whoever compares, whoever writes a worker.

include(GNUInstallDirs)
set(docs ${CMAKE_INSTALL_DATADIR}/doc/headstart)

install(TARGETS headstart-server headstart-pki RUNTIME COMPONENT server)
install(TARGETS headstart-client headstart-peer RUNTIME COMPONENT client)
install(TARGETS headstart-lab RUNTIME COMPONENT lab)
install(FILES server/README.md server/run_files.md DESTINATION ${docs}-server COMPONENT server)
install(FILES client/README.md client/scripts.md DESTINATION ${docs}-client COMPONENT client)
install(FILES shared/worker_process/README.md DESTINATION ${docs}-client COMPONENT client RENAME worker_process.md)
install(FILES client/python/README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/python3-headstart COMPONENT python)
# The scripts of comparisons and studies, with their plans.
install(DIRECTORY experiments/ DESTINATION ${CMAKE_INSTALL_DATADIR}/headstart/experiments COMPONENT lab
        FILES_MATCHING PATTERN "*.py" PATTERN "*.json" PATTERN "*.md"
        PATTERN results EXCLUDE PATTERN bench EXCLUDE PATTERN __pycache__ EXCLUDE)
install(DIRECTORY client/python/headstart DESTINATION lib/python3/dist-packages COMPONENT python
        FILES_MATCHING PATTERN "*.py" PATTERN "py.typed")
foreach(component server client lab)
  install(FILES LICENSE DESTINATION ${docs}-${component} COMPONENT ${component} RENAME copyright)
endforeach()
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/python3-headstart COMPONENT python RENAME copyright)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME headstart)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/packages)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL server client lab python)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "The Headstart developers")
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)

set(CPACK_DEBIAN_SERVER_PACKAGE_NAME headstart-server)
set(CPACK_COMPONENT_SERVER_DESCRIPTION "Federated learning with a distilled start: the coordinator
 headstart-server, and headstart-pki for its certificates.")
set(CPACK_DEBIAN_CLIENT_PACKAGE_NAME headstart-client)
set(CPACK_COMPONENT_CLIENT_DESCRIPTION "Federated learning with a distilled start: a silo
 headstart-client, and headstart-peer for silos without a server.")
set(CPACK_DEBIAN_CLIENT_PACKAGE_RECOMMENDS "python3-headstart")
set(CPACK_DEBIAN_LAB_PACKAGE_NAME headstart-lab)
set(CPACK_COMPONENT_LAB_DESCRIPTION "Federated learning with a distilled start: simulation and studies
 headstart-lab, and the scripts that compare starts.")
set(CPACK_DEBIAN_LAB_PACKAGE_DEPENDS "python3, python3-numpy, python3-matplotlib")
set(CPACK_DEBIAN_LAB_PACKAGE_RECOMMENDS "headstart-server, headstart-client, dataset-fashion-mnist")
set(CPACK_DEBIAN_PYTHON_PACKAGE_NAME python3-headstart)
set(CPACK_DEBIAN_PYTHON_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_PYTHON_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_PYTHON_PACKAGE_DEPENDS "python3 (>= 3.11), python3-numpy")
set(CPACK_DEBIAN_PYTHON_PACKAGE_SUGGESTS "python3-torch, python3-sklearn, python3-pandas")
set(CPACK_COMPONENT_PYTHON_DESCRIPTION "Federated learning with a distilled start: workers and results in Python
 A silo's own training in ten lines, and readers of what a run leaves.")
include(CPack)
