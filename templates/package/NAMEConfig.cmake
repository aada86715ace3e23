# @name@Config.cmake: made by heddle @version@ for @spec@. What find_package(@name@ CONFIG) reads once the library is installed.
include(CMakeFindDependencyMacro)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/@name@Targets.cmake)
